/** The listener to the kernel's announcements, in a namespace of its own. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import { findLink } from '../../../overlay/kernel/link.ts';
import { KernelMonitor } from '../../../overlay/kernel/monitor.ts';
import { inNamespace } from '../../../overlay/kernel/namespace.ts';
import { deleteNeighbour, readNeighbour, setNeighbour } from '../../../overlay/kernel/neighbour.ts';
import type { NetlinkMessage } from '../../../overlay/kernel/netlink-message.ts';
import { NetlinkSocket } from '../../../overlay/kernel/netlink-socket.ts';
import { until } from '../../../overlay/lab/wait.ts';
import { type Address, addressAt, parseMac, parseSubnet } from '../../../store/address.ts';
import { need } from '../../lab/capability.ts';

const NETWORK = parseSubnet('10.0.0.0/16');
const MAC = parseMac('02:00:00:00:00:01');
/** The last one to be announced: not one of those that are lost. */
const LATE = addressAt(NETWORK, 60_000);
const DEADLINE_MS = 20_000;

describe('kernel monitor', () => {
  const namespace = `vtmo${randomBytes(3).toString('hex')}`;
  const path = `/run/netns/${namespace}`;
  let netlink: NetlinkSocket;
  let index: number;

  before(function () {
    need(this, 'root', 'ip');
    execFileSync('ip', ['netns', 'add', namespace]);
    execFileSync('ip', ['-n', namespace, 'link', 'add', 'd0', 'up', 'type', 'bridge']);
    netlink = inNamespace(path, () => NetlinkSocket.open());
    index = findLink(netlink, 'd0')?.index ?? 0;
  });
  after(() => {
    netlink?.close();
    execFileSync('ip', ['netns', 'del', namespace]);
  });

  /** More than a socket buffer holds, while nobody reads: the event loop does not turn meanwhile. */
  function flood(): void {
    const addresses = Array.from({ length: 1000 }, (_, i) => addressAt(NETWORK, i + 1));
    for (let times = 0; times < 15; times++) {
      netlink.execute(
        addresses.map((address) => setNeighbour(index, address, MAC)),
        () => 'add',
      );
      netlink.execute(
        addresses.map((address) => deleteNeighbour(index, address)),
        () => 'delete',
      );
    }
  }

  it('announces what happens after it has told that announcements were lost', async () => {
    const seen = new Set<Address>();
    let lost = 0;
    const monitor = inNamespace(
      path,
      () =>
        new KernelMonitor({
          routing(message: NetlinkMessage) {
            const neighbour = readNeighbour(message);
            if (neighbour !== undefined) seen.add(neighbour.address);
          },
          netfilter() {},
          // Whoever is told looks at everything now; what changes from now on must be announced again.
          lost() {
            if (lost++ === 0) netlink.request(setNeighbour(index, LATE, MAC), 'add the late one');
          },
        }),
    );
    try {
      flood();
      await until(() => lost > 0, { what: 'the loss to be told', deadlineMs: DEADLINE_MS });
      await until(() => seen.has(LATE), { what: 'the late neighbour', deadlineMs: DEADLINE_MS });
      expect(lost).to.equal(1);
    } finally {
      await monitor.close();
    }
  });
});
