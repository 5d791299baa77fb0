/** One call of the plugin, checked: the environment's variables and the network configuration. */
import type { AttachmentKey } from './attachment.ts';
import { CNI_CODES, CniError } from './cni-error.ts';
import type { RequestFrame } from './frames.ts';
import { type NetworkConfiguration, parseNetworkConfiguration } from './network-configuration.ts';
import { type CniVersion, isAtLeast, knownVersion, NEWEST_CNI_VERSION } from './versions.ts';

export const CNI_VERBS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;
export type CniVerb = (typeof CNI_VERBS)[number];

/** ADD, DEL and CHECK are about one attachment. */
export interface AttachmentRequest {
  readonly verb: 'ADD' | 'DEL' | 'CHECK';
  readonly config: NetworkConfiguration;
  readonly containerID: string;
  readonly ifname: string;
  /** The path of the pod's namespace as the runtime sees it; empty where DEL has none. */
  readonly netns: string;
  /** Kubernetes' `namespace/name`. */
  readonly pod: string | undefined;
  /** The name by which the pod gets the address back that it had before. */
  readonly sticky: string | undefined;
}

export const keyOf = ({ config, containerID, ifname }: AttachmentRequest): AttachmentKey => ({
  network: config.name,
  containerID,
  ifname,
});

/** GC and STATUS are about the network. */
export interface NetworkRequest {
  readonly verb: 'GC' | 'STATUS';
  readonly config: NetworkConfiguration;
}

/** The shim answers VERSION itself; another client of the socket may ask all the same. */
export interface VersionRequest {
  readonly verb: 'VERSION';
  /** The one to answer in. */
  readonly version: CniVersion;
}

export type CniRequest = AttachmentRequest | NetworkRequest | VersionRequest;

/** The version of the specification in which a verb came. */
const VERB_SINCE: Partial<Record<CniVerb, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

/** A namespace's and a pod's name have 63 and 253 characters at most. */
const MAX_STICKY_LENGTH = 512;
const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
/** What runtimes and Kubernetes pass; others only with IgnoreUnknown. */
const KNOWN_ARGS = new Set([
  'IP',
  'MAC',
  'IgnoreUnknown',
  'K8S_POD_NAME',
  'K8S_POD_NAMESPACE',
  'K8S_POD_UID',
  'K8S_POD_INFRA_CONTAINER_ID',
  'VTEPD_STICKY',
]);

/** @throws CniError 4 (a variable, named), and those of parseNetworkConfiguration */
export function parseRequest(frame: RequestFrame): CniRequest {
  const verb = CNI_VERBS.find((known) => known === frame.command);
  if (verb === undefined) throw environment('CNI_COMMAND', `must be one of ${CNI_VERBS.join(', ')}`);
  if (verb === 'VERSION') return { verb, version: answerVersion(frame) };
  const args = parseArgs(frame.args);
  const config = parseNetworkConfiguration(frame.config, args);
  const since = VERB_SINCE[verb] ?? '0.3.0';
  if (!isAtLeast(config.version, since)) {
    throw new CniError(
      CNI_CODES.incompatibleVersion,
      `cniVersion: ${verb} came with version ${since}; the configuration says ${config.version}`,
    );
  }
  if (verb === 'GC' || verb === 'STATUS') return { verb, config };
  if (!CONTAINER_ID.test(frame.containerID)) {
    throw environment(
      'CNI_CONTAINERID',
      'must be letters, digits, "_", "." and "-", and begin with a letter or digit',
    );
  }
  checkInterfaceName(frame.ifname);
  if (frame.netns === '' && verb !== 'DEL') throw environment('CNI_NETNS', 'is not set');
  const [namespace, name] = [args.get('K8S_POD_NAMESPACE'), args.get('K8S_POD_NAME')];
  const pod = name === undefined ? undefined : `${namespace ?? 'default'}/${name}`;
  return {
    verb,
    config,
    containerID: frame.containerID,
    ifname: frame.ifname,
    netns: frame.netns,
    pod,
    sticky: stickyName(config, pod),
  };
}

/** A name that the operator chose is never one that Kubernetes made, and the other way round. */
function stickyName({ sticky }: NetworkConfiguration, pod: string | undefined): string | undefined {
  if (sticky === false) return undefined;
  const name = sticky === undefined ? pod && `pod ${pod}` : `name ${sticky}`;
  return name !== undefined && name.length <= MAX_STICKY_LENGTH ? name : undefined;
}

/** The version an answer to these bytes should have, whatever else may be wrong with them. */
export function answerVersion(frame: Pick<RequestFrame, 'config'>): CniVersion {
  const said = /"cniVersion"\s*:\s*"([0-9.]{1,16})"/.exec(frame.config)?.[1];
  return knownVersion(said ?? '') ?? NEWEST_CNI_VERSION;
}

const environment = (variable: string, problem: string): CniError =>
  new CniError(CNI_CODES.invalidEnvironment, `${variable}: ${problem}`);

/** The kernel's rules (dev_valid_name) and the specification's. */
function checkInterfaceName(name: string): void {
  if (name === '' || name === '.' || name === '..' || /[/:\s]/.test(name) || Buffer.byteLength(name) > 15) {
    throw environment(
      'CNI_IFNAME',
      `"${name.slice(0, 32)}" is not an interface name: 1 to 15 bytes without "/", ":" and white space`,
    );
  }
}

/** `KEY=VALUE;KEY=VALUE` */
function parseArgs(text: string): ReadonlyMap<string, string> {
  const args = new Map<string, string>();
  for (const pair of text === '' ? [] : text.split(';')) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    if (equals < 1) throw environment('CNI_ARGS', `"${pair.slice(0, 64)}" is not KEY=VALUE`);
    args.set(pair.slice(0, equals), pair.slice(equals + 1));
  }
  if (!/^(1|t|true)$/i.test(args.get('IgnoreUnknown') ?? '')) {
    for (const key of args.keys()) {
      if (!KNOWN_ARGS.has(key)) {
        throw environment('CNI_ARGS', `${key.slice(0, 64)} is not known (IgnoreUnknown=true passes over it)`);
      }
    }
  }
  return args;
}
