/** The guard of the VXLAN port, with real packets: who may send to it, and who may send from here. */
import { expect } from 'chai';
import { ENCAPSULATED_MARK, peerElement } from '../../../overlay/desired/firewall.ts';
import { runInside } from '../../../overlay/lab/namespace.ts';
import { need } from '../../lab/capability.ts';
import { ethernet, udp, udpFragments, vxlan } from './frames.ts';
import { ADDRESSES, FAMILY_NAMES, type FamilyName, MACS, PORT, Rig, VNI } from './rig.ts';
import { sendUdp } from './wire.ts';

const EPERM = 1;
const HOME = { from: MACS.router, to: MACS.node };

describe('firewall: the VXLAN port', () => {
  let rig: Rig;

  before(async function () {
    need(this, 'root', 'ip', 'nft', 'bridge');
    rig = await Rig.build();
    for (const [device, family] of [
      ['vtep.1', 'ipv4'],
      ['vtep-v6.1', 'ipv6'],
    ] as const) {
      const { peer } = ADDRESSES[family];
      await runInside(rig.node, ['bridge', 'fdb', 'add', MACS.peerVtep, 'dev', device, 'dst', peer, 'self']);
    }
  });
  after(() => rig?.[Symbol.asyncDispose]());
  beforeEach(() => rig.apply());

  for (const family of FAMILY_NAMES) {
    const a = ADDRESSES[family];

    describe(`towards this node, ${family}`, () => {
      it('lets a known peer in', async () => {
        await rig.passes(rig.under, (p) => rig.encapsulated(family, 'peer', rig.inner(family, p)), rig.podA);
      });

      it('drops what comes from a stranger', async () => {
        const make = (p: Buffer) => rig.encapsulated(family, 'stranger', rig.inner(family, p));
        await rig.drops(rig.under, make, 'vxlan_stranger');
        rig.apply({ peerFilter: false });
        await rig.passes(rig.under, make, rig.podA);
      });

      it('follows a peer that comes and goes', async () => {
        const make = (p: Buffer) => rig.encapsulated(family, 'stranger', rig.inner(family, p));
        rig.firewall.adjust({ add: [peerElement(a.stranger)] });
        await rig.passes(rig.under, make, rig.podA);
        rig.firewall.adjust({ remove: [peerElement(a.stranger)] });
        await rig.drops(rig.under, make, 'vxlan_stranger');
      });

      it('takes a long packet of a peer in fragments', async () => {
        const make = (p: Buffer) =>
          udpFragments(
            HOME,
            { from: a.peer, to: a.node },
            { from: 50_000, to: PORT },
            vxlan(VNI, rig.inner(family, Buffer.concat([p, Buffer.alloc(1000)]))),
            256,
          );
        await rig.passes(rig.under, make, rig.podA);
      });

      for (const firstBytes of [8, 16]) {
        it(`drops a stranger's whose first fragment has ${firstBytes} bytes`, () =>
          rig.drops(rig.under, stranger(rig, family, firstBytes), 'vxlan_stranger'));
      }

      it('drops what claims to be a peer but comes out of the overlay', async () => {
        rig.apply({ podFilter: false });
        const frame = (p: Buffer) =>
          udp(
            { from: MACS.podA, to: MACS.bridge },
            { from: a.peer, to: a.gateway },
            { from: 50_000, to: PORT },
            vxlan(VNI, rig.inner(family, p)),
          );
        await rig.drops(rig.podA, frame, 'vxlan_stranger');
      });

      it('leaves other ports alone', async () => {
        using tap = rig.tap('eth0');
        const make = (p: Buffer) => udp(HOME, { from: a.stranger, to: a.node }, { from: 5, to: PORT + 1 }, p);
        await rig.passes(rig.under, make, tap);
        expect(rig.firewall.drops().vxlan_stranger).to.be.a('number');
      });
    });

    describe(`from this node, ${family}`, () => {
      const toPeer = { from: MACS.podA, to: MACS.bridge };

      it("carries a pod's packet to the peer", async () => {
        const make = (p: Buffer) =>
          udp(toPeer, { from: a.podA, to: a.remotePod }, { from: 4000, to: 4001 }, p);
        const outer = await rig.passes(rig.podA, make, rig.under);
        const header = family === 'ipv4' ? 34 : 54;
        expect(outer.readUInt16BE(header + 2)).to.equal(PORT);
        expect(outer.readUIntBE(header + 12, 3)).to.equal(VNI);
      });

      it("carries a packet of the node's own", async () => {
        const marker = rig.marker();
        expect(sendUdp(rig.node, a.remotePod, 4001, Buffer.from(marker))).to.equal(0);
        await rig.under.expect(marker);
      });

      it('refuses a process its own VXLAN, whatever it sends it to', async () => {
        const marker = rig.marker();
        const payload = vxlan(VNI, rig.inner(family, Buffer.from(marker)));
        await rig.counted('vxlan_forged', () => {
          expect(sendUdp(rig.node, a.peer, PORT, payload)).to.equal(EPERM);
        });
        await rig.counted('vxlan_forged', () => {
          expect(sendUdp(rig.node, a.node, PORT, payload)).to.equal(EPERM);
        });
        rig.nowhere(marker);
        rig.apply({ peerFilter: false });
        expect(sendUdp(rig.node, a.peer, PORT, payload)).to.equal(0);
        await rig.under.expect(marker);
      });

      it('lets other VNIs and other ports of a process pass', async () => {
        for (const [vni, port] of [
          [VNI + 1, PORT],
          [VNI, PORT + 1],
        ] as const) {
          const marker = rig.marker();
          const payload = vxlan(vni, rig.inner(family, Buffer.from(marker)));
          expect(sendUdp(rig.node, a.peer, port, payload)).to.equal(0);
          await rig.under.expect(marker);
        }
      });

      it('lets the user-space path pass, by its mark', async () => {
        const marker = rig.marker();
        const payload = vxlan(VNI, rig.inner(family, Buffer.from(marker)));
        expect(sendUdp(rig.node, a.peer, PORT, payload, { mark: ENCAPSULATED_MARK })).to.equal(0);
        await rig.under.expect(marker);
      });

      it('takes its own mark off again, and no other', async () => {
        const table = `table inet watcher {
          chain forward { type filter hook forward priority 0; meta mark set 0x21; }
          counter ours { };
          counter theirs { };
          chain last { type filter hook postrouting priority 301;
            oifname "eth0" meta mark and ${ENCAPSULATED_MARK} != 0 counter name ours
            oifname "eth0" meta mark 0x21 counter name theirs
          }
        }`;
        await runInside(rig.node, ['nft', '-f', '-'], { input: table });
        try {
          const make = (p: Buffer) =>
            udp(toPeer, { from: a.podA, to: a.remotePod }, { from: 4000, to: 4001 }, p);
          await rig.passes(rig.podA, make, rig.under);
          const counters = await rig.nft(['list', 'counters', 'table', 'inet', 'watcher']);
          expect(counters).to.match(/counter ours \{\s+packets 0 /);
          expect(counters).to.match(/counter theirs \{\s+packets 1 /);
        } finally {
          await rig.nft(['delete', 'table', 'inet', 'watcher']);
        }
      });

      it("drops a pod's UDP to the port outside the overlay, whatever its VNI", async () => {
        for (const to of [a.peer, a.stranger, a.world]) {
          for (const vni of [VNI, VNI + 1]) {
            const make = (p: Buffer) =>
              udp(toPeer, { from: a.podA, to }, { from: 50_000, to: PORT }, vxlan(vni, rig.inner(family, p)));
            await rig.drops(rig.podA, make, 'vxlan_pod');
          }
        }
        rig.apply({ peerFilter: false });
        const make = (p: Buffer) =>
          udp(
            toPeer,
            { from: a.podA, to: a.peer },
            { from: 50_000, to: PORT },
            vxlan(VNI, rig.inner(family, p)),
          );
        await rig.passes(rig.podA, make, rig.under);
      });

      it('lets pods talk VXLAN with pods', async () => {
        const make = (p: Buffer) =>
          udp(
            toPeer,
            { from: a.podA, to: a.remotePod },
            { from: 50_000, to: PORT },
            vxlan(VNI, rig.inner(family, p)),
          );
        await rig.passes(rig.podA, make, rig.under);
      });

      it("drops a pod's VXLAN to this very node", async () => {
        for (const to of [a.node, a.gateway, a.vtep]) {
          const make = (p: Buffer) =>
            udp(toPeer, { from: a.podA, to }, { from: 50_000, to: PORT }, vxlan(VNI, rig.inner(family, p)));
          await rig.drops(rig.podA, make, 'vxlan_stranger');
        }
      });
    });
  }

  it("leaves another VNI on the port to its owner, a stranger's too", async () => {
    using tap = rig.tap('other42');
    const make = (p: Buffer) =>
      rig.encapsulated('ipv4', 'stranger', ethernet({ from: MACS.peerVtep, to: MACS.podB }, 0x88b5, p), 42);
    await rig.passes(rig.under, make, tap);
  });

  it('drops a short first fragment where nothing puts fragments together before', async () => {
    // Once connections were tracked, that ends some time after the last rule that asked for it: a fresh node.
    await using untracked = await Rig.build();
    untracked.apply({ masquerade: false });
    for (const family of FAMILY_NAMES) {
      for (const firstBytes of [8, 16]) {
        await untracked.drops(untracked.under, stranger(untracked, family, firstBytes), 'vxlan_stranger');
      }
    }
  });
});

/** A stranger's packet in two fragments, of which the first has the UDP header and no (8) or all (16) of VXLAN's. */
const stranger = (rig: Rig, family: FamilyName, firstBytes: number) => (payload: Buffer) =>
  udpFragments(
    HOME,
    { from: ADDRESSES[family].stranger, to: ADDRESSES[family].node },
    { from: 50_000, to: PORT },
    vxlan(VNI, rig.inner(family, payload)),
    firstBytes,
  );
