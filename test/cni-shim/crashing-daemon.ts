/**
 * A process with a registry and a CNI server on a TestNode's namespace, for crash.test.ts to kill. It prints
 * a line when it listens. With a checkpoint's name it kills itself there, as kill -9 would.
 *
 *     node crashing-daemon.js NAMESPACE BRIDGE_INDEX STATE_DIR SOCKET [CHECKPOINT]
 */
import { AttachmentRegistry } from '../../cni-shim/registry.ts';
import { createCniServer } from '../../cni-shim/server.ts';
import { inNamespace } from '../../overlay/kernel/namespace.ts';
import { NetlinkSocket } from '../../overlay/kernel/netlink-socket.ts';
import { silentLog } from '../../overlay/ops/log.ts';
import { FakeNetwork } from './test-node.ts';

const [namespace = '', bridgeIndex = '', stateDir = '', socketPath = '', fatal] = process.argv.slice(2);
const openNetlink = (): NetlinkSocket => inNamespace(`/run/netns/${namespace}`, () => NetlinkSocket.open());
const registry = await AttachmentRegistry.open({ stateDir, log: silentLog, openNetlink });
await createCniServer({
  socketPath,
  network: new FakeNetwork(Number(bridgeIndex), 'dual'),
  registry,
  log: silentLog,
  openNetlink,
  checkpoint: (step) => {
    if (step === fatal) process.kill(process.pid, 'SIGKILL');
  },
});
console.log('listening');
