/** Whose address a packet carries when it leaves the overlay, stays in it, or enters it from outside. */
import { expect } from 'chai';
import { runInside } from '../../../overlay/lab/namespace.ts';
import { type Address, addressFromBytes } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';
import { udp } from './frames.ts';
import { ADDRESSES, FAMILY_NAMES, type FamilyName, MACS, Rig } from './rig.ts';
import { sendUdp } from './wire.ts';

const ETHERNET_BYTES = 14;
/** UDP, VXLAN and the inner Ethernet header. */
const TUNNEL_BYTES = 8 + 8 + ETHERNET_BYTES;

describe('firewall: source addresses', () => {
  let rig: Rig;

  before(async function () {
    need(this, 'root', 'ip', 'nft', 'bridge');
    rig = await Rig.build();
    for (const family of FAMILY_NAMES) {
      const device = family === 'ipv4' ? 'vtep.1' : 'vtep-v6.1';
      const { peer } = ADDRESSES[family];
      await runInside(rig.node, ['bridge', 'fdb', 'add', MACS.peerVtep, 'dev', device, 'dst', peer, 'self']);
    }
  });
  after(() => rig?.[Symbol.asyncDispose]());
  beforeEach(() => rig.apply());

  for (const family of FAMILY_NAMES) {
    const a = ADDRESSES[family];
    const fromPod = (to: Address) => (p: Buffer) =>
      udp({ from: MACS.podA, to: MACS.bridge }, { from: a.podA, to }, { from: 4000, to: 4001 }, p);

    describe(family, () => {
      it("a pod's packet to the world carries the node's address and a random port", async () => {
        const ports = new Set<number>();
        for (let i = 0; i < 4; i++) {
          const sent = await rig.passes(
            rig.podA,
            (p) =>
              udp(
                { from: MACS.podA, to: MACS.bridge },
                { from: a.podA, to: a.world },
                { from: 5000 + i, to: 9 },
                p,
              ),
            rig.under,
          );
          expect(source(family, sent)).to.equal(a.node);
          ports.add(sent.readUInt16BE(ETHERNET_BYTES + headerBytes(family)));
        }
        expect([...ports].filter((port) => port >= 5000 && port < 5004)).to.have.lengthOf.below(4);
      });

      it("a pod's packet to the node's neighbours too", async () => {
        const sent = await rig.passes(rig.podA, fromPod(a.stranger), rig.under);
        expect(source(family, sent)).to.equal(a.node);
      });

      it('a pod is itself to every other pod, here and there', async () => {
        const away = await rig.passes(rig.podA, fromPod(a.remotePod), rig.under);
        expect(source(family, away)).to.equal(a.node);
        expect(innerSource(family, away)).to.equal(a.podA);
        const here = await rig.passes(
          rig.podA,
          (p) => udp({ from: MACS.podA, to: MACS.podB }, { from: a.podA, to: a.podB }, { from: 1, to: 2 }, p),
          rig.podB,
        );
        expect(source(family, here)).to.equal(a.podA);
      });

      it("a node's packet to a remote pod carries an address of the overlay, whatever it was bound to", async () => {
        for (const [bound, expected] of [
          [undefined, a.vtep],
          [a.node, a.gateway],
        ] as const) {
          const marker = rig.marker();
          const options = bound === undefined ? {} : { source: bound };
          expect(sendUdp(rig.node, a.remotePod, 4001, Buffer.from(marker), options)).to.equal(0);
          expect(innerSource(family, await rig.under.expect(marker)), `bound to ${bound}`).to.equal(expected);
        }
      });

      it("a node's packet to its own pod keeps its address", async () => {
        const marker = rig.marker();
        expect(sendUdp(rig.node, a.podA, 4001, Buffer.from(marker), { source: a.node })).to.equal(0);
        expect(source(family, await rig.podA.expect(marker))).to.equal(a.node);
      });

      it('switched off, nothing is translated', async () => {
        rig.apply({ masquerade: false });
        const sent = await rig.passes(
          rig.podA,
          (p) =>
            udp(
              { from: MACS.podA, to: MACS.bridge },
              { from: a.podA, to: a.world },
              { from: 6000, to: 9 },
              p,
            ),
          rig.under,
        );
        expect(source(family, sent)).to.equal(a.podA);
        expect(await rig.nft(['list', 'ruleset'])).to.not.match(/masquerade|snat/);
      });
    });
  }

  it('multicast is not translated', async () => {
    // No multicast routing daemon here to forward it: the rule stands before the one that translates.
    const chain = await rig.nft(['list', 'chain', 'inet', 'vtepd', 'source_nat']);
    for (const group of ['224.0.0.0/4', 'ff00::/8']) {
      expect(chain.indexOf(group)).to.be.within(0, chain.indexOf('masquerade', chain.indexOf(group)));
    }
    expect(chain.match(/masquerade fully-random/g)).to.have.lengthOf(2);
  });
});

const headerBytes = (family: FamilyName): number => (family === 'ipv4' ? 20 : 40);

function source(family: FamilyName, frame: Buffer, start = ETHERNET_BYTES): Address {
  return family === 'ipv4'
    ? addressFromBytes(frame.subarray(start + 12, start + 16))
    : addressFromBytes(frame.subarray(start + 8, start + 24));
}

const innerSource = (family: FamilyName, frame: Buffer): Address =>
  source(family, frame, ETHERNET_BYTES + headerBytes(family) + TUNNEL_BYTES);
