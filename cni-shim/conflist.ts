/** The network configuration list that a container runtime reads: our plugin, then portmap. */

export const CONFLIST_NAME = '10-vtepd.conflist';
export const PLUGIN_NAME = 'vtepd-cni';
/** Also the folder of the network's addresses in the state directory. */
export const NETWORK_NAME = 'vtepd';

export interface ConflistSettings {
  /** The daemon's own: where the plugin finds it. */
  readonly socketPath: string;
  readonly bridge: string;
  /** The plugins after ours may not speak the newest: 1.0.0 is what all that are in use do. */
  readonly cniVersion?: string | undefined;
}

/** Runtimes and plugins ignore a key they do not know: these are for people. */
const NOTE = '_comment';

/** JSON, annotated. */
export function conflistText({ socketPath, bridge, cniVersion = '1.0.0' }: ConflistSettings): string {
  const list = {
    [NOTE]: [
      'Installed by vtepd, which writes it anew at every start: put a list of your own beside it, under a',
      'name that sorts before this one, to change what pods get. "vtepd cni remove" takes it away.',
    ],
    cniVersion,
    name: NETWORK_NAME,
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
