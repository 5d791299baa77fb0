/** Which offloads are on for a device: they decide more of a tunnel's cost than its code does. */
import { isInstalled, run } from '../../overlay/lab/command.ts';

/** Those that matter to throughput, by ethtool's names. */
const FEATURES: readonly string[] = [
  'rx-checksumming',
  'tx-checksumming',
  'scatter-gather',
  'tcp-segmentation-offload',
  'generic-segmentation-offload',
  'generic-receive-offload',
  'tx-udp_tnl-segmentation',
  'tx-udp_tnl-csum-segmentation',
  'rx-gro-list',
  'rx-udp-gro-forwarding',
];

/** Undefined where ethtool is not installed or knows nothing of the device. */
export async function offloadsOf(
  namespace: string | undefined,
  device: string,
): Promise<string[] | undefined> {
  if (!isInstalled('ethtool')) return undefined;
  const inIt = namespace === undefined ? [] : ['netns', 'exec', namespace, 'ethtool'];
  const [program, ...args] = [...(inIt.length > 0 ? ['ip', ...inIt] : ['ethtool']), '-k', device];
  const { status, stdout } = await run(program ?? 'ethtool', args, { tolerant: true });
  if (status !== 0) return undefined;
  return FEATURES.filter((name) => new RegExp(`^\\s*${name}: on`, 'm').test(stdout));
}
