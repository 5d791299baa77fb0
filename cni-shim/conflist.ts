/** The network configuration list that a container runtime reads: our plugin, then portmap; or an operator's. */
import { z } from 'zod/v3';

export const CONFLIST_NAME = '10-vtepd.conflist';
export const PLUGIN_NAME = 'vtepd-cni';
/** Also the folder of the network's addresses in the state directory. */
export const NETWORK_NAME = 'vtepd';

export interface ConflistSettings {
  /** The daemon's own: where the plugin finds it. */
  readonly socketPath: string;
  readonly bridge: string;
  /** Under which runtimes and plugins know the pods; NETWORK_NAME unless they knew them by another before. */
  readonly network?: string | undefined;
  /** The plugins after ours may not speak the newest: 1.0.0 is what all that are in use do. */
  readonly cniVersion?: string | undefined;
}

/** Runtimes and plugins ignore a key they do not know: these are for people. */
const NOTE = '_comment';

/** JSON, annotated. */
export function conflistText({
  socketPath,
  bridge,
  network = NETWORK_NAME,
  cniVersion = '1.0.0',
}: ConflistSettings): string {
  const list = {
    [NOTE]: [
      'Installed by vtepd, which writes it anew at every start: put a list of your own beside it, under a',
      'name that sorts before this one, to change what pods get. "vtepd cni remove" takes it away.',
    ],
    cniVersion,
    name: network,
    plugins: [
      {
        [NOTE]: [
          'Asks the daemon at "socket" for an interface on "bridge". Also understood: "mtu" (at most the',
          'overlay\'s), "isGateway": false (no default route), "dns". Addresses come from the node\'s lease.',
        ],
        type: PLUGIN_NAME,
        socket: socketPath,
        bridge,
        isGateway: true,
        hairpinMode: true,
        capabilities: { ips: true, mac: true },
      },
      {
        [NOTE]: 'Makes published ports of a pod reachable on the node. A plugin of the reference set.',
        type: 'portmap',
        snat: true,
        capabilities: { portMappings: true },
      },
    ],
  };
  return `${JSON.stringify(list, undefined, 2)}\n`;
}

/** An operator's list cannot be used. */
export class ConflistError extends Error {
  override readonly name = 'ConflistError';
  readonly code = 'VTEPD_CONFLIST';
}

const listSchema = z
  .object({
    cniVersion: z.string(),
    name: z.string(),
    plugins: z.array(z.object({ type: z.string() }).passthrough()),
  })
  .passthrough();

/**
 * An operator's list as it is installed: theirs, with the socket and the bridge in our plugin's entry where
 * they left them out, for those are the daemon's.
 * @throws ConflistError
 */
export function completedConflist(text: string, { socketPath, bridge }: ConflistSettings): string {
  const parsed = listSchema.safeParse(jsonOf(text));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new ConflistError(`${issue?.path.join('.') || 'the list'}: ${issue?.message}`);
  }
  const list = parsed.data;
  const ours = list.plugins.filter(({ type }) => type === PLUGIN_NAME);
  if (ours.length !== 1) {
    throw new ConflistError(
      `plugins: exactly one must be of the type "${PLUGIN_NAME}"; there are ${ours.length}`,
    );
  }
  const plugins = list.plugins.map((plugin) =>
    plugin.type === PLUGIN_NAME
      ? { ...plugin, socket: plugin.socket ?? socketPath, bridge: plugin.bridge ?? bridge }
      : plugin,
  );
  return `${JSON.stringify({ ...list, plugins }, undefined, 2)}\n`;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ConflistError('it is not JSON', { cause });
  }
}
