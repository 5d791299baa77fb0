/**
 * What this node remembers over restarts and reboots, in the state directory: its MAC addresses, so that
 * peers keep their entries; the lease it held, so that it gets the same subnet again; and what a change of the
 * network left behind: leases that still have pods, and the networks that such leases lie in.
 */
import { join } from 'node:path';
import { z } from 'zod/v3';
import {
  type Family,
  isUnicastMac,
  localMac,
  type Mac,
  type PerFamily,
  tryMac,
} from '../../store/address.ts';
import type { Lease, NetworkConfig } from '../../store/lease.ts';
import { decodeLease, encodeLease, isMalformed } from '../../store/lease-codec.ts';
import { encodeNetworkConfig, parseNetworkConfig } from '../../store/network-config.ts';
import { readFileIfThere, writeFileAtomically } from '../kernel/files.ts';
import type { Log } from '../ops/log.ts';

const macSchema = z.string().transform((text, context): Mac => {
  const mac = tryMac(text);
  if (mac !== undefined && isUnicastMac(mac)) return mac;
  context.addIssue({ code: 'custom', message: 'not the MAC address of an interface' });
  return z.NEVER;
});

const leaseSchema = z.object({ key: z.string(), value: z.string() });

const fileSchema = z.object({
  vtepMAC: z.object({ ipv4: macSchema, ipv6: macSchema }),
  bridgeMAC: macSchema,
  lease: leaseSchema.optional(),
  formerLeases: z.array(leaseSchema).default([]),
  networks: z.array(z.string()).default([]),
});

/** More changes of the network than anybody's pods live through. */
const MOST_NETWORKS = 8;

export interface NodeIdentity {
  readonly vtepMac: Readonly<Record<Family, Mac>>;
  readonly bridgeMac: Mac;
}

export class NodeMemory {
  readonly #path: string;
  #identity: NodeIdentity;
  #lease: Lease | undefined;
  #formerLeases: readonly Lease[] = [];
  #networks: readonly NetworkConfig[] = [];

  /** @param random fills an array with random bytes */
  constructor(stateDir: string, random: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array, log: Log) {
    this.#path = join(stateDir, 'node.json');
    const known = this.#read(log);
    if (known !== undefined) {
      this.#identity = { vtepMac: known.vtepMAC, bridgeMac: known.bridgeMAC };
      this.#lease = known.lease === undefined ? undefined : readable(known.lease)[0];
      this.#formerLeases = known.formerLeases.flatMap(readable);
      this.#networks = known.networks.flatMap(readableNetwork);
      return;
    }
    const mac = (): Mac => localMac(random(new Uint8Array(6)));
    this.#identity = { vtepMac: { ipv4: mac(), ipv6: mac() }, bridgeMac: mac() };
    this.#write();
  }

  get identity(): NodeIdentity {
    return this.#identity;
  }

  /** Devices of another program become ours: their MACs and, where it is known, their lease. */
  takeOver(
    { vtepMac, bridgeMac }: { readonly vtepMac: PerFamily<Mac>; readonly bridgeMac: Mac | undefined },
    lease: Lease | undefined,
  ): void {
    const before = this.#identity;
    this.#identity = {
      vtepMac: { ipv4: vtepMac.ipv4 ?? before.vtepMac.ipv4, ipv6: vtepMac.ipv6 ?? before.vtepMac.ipv6 },
      bridgeMac: bridgeMac ?? before.bridgeMac,
    };
    this.#lease = lease ?? this.#lease;
    this.#write();
  }

  /** The lease as this node last wrote it. */
  get lease(): Lease | undefined {
    return this.#lease;
  }

  /** Undefined after the lease was given back. */
  rememberLease(lease: Lease | undefined): void {
    this.#lease = lease;
    this.#write();
  }

  /** Leases of this node that a change of the network left behind, and that are in the store still. */
  get formerLeases(): readonly Lease[] {
    return this.#formerLeases;
  }

  rememberFormerLeases(leases: readonly Lease[]): void {
    this.#formerLeases = leases;
    this.#write();
  }

  /** Configurations that somebody's leases may lie in: the one in use last. */
  get networks(): readonly NetworkConfig[] {
    return this.#networks;
  }

  rememberNetworks(networks: readonly NetworkConfig[]): void {
    this.#networks = networks.slice(-MOST_NETWORKS);
    this.#write();
  }

  #read(log: Log): z.infer<typeof fileSchema> | undefined {
    const text = readFileIfThere(this.#path);
    if (text === undefined) return undefined;
    try {
      return fileSchema.parse(JSON.parse(text));
    } catch (error) {
      // Peers follow our lease to the new MAC; a daemon that will not start helps nobody.
      log.error('the state file cannot be read; this node gets new MAC addresses', {
        path: this.#path,
        error,
      });
      return undefined;
    }
  }

  #write(): void {
    const { vtepMac, bridgeMac } = this.#identity;
    const file: z.input<typeof fileSchema> = {
      vtepMAC: vtepMac,
      bridgeMAC: bridgeMac,
      ...(this.#lease && { lease: stored(this.#lease) }),
      formerLeases: this.#formerLeases.map(stored),
      networks: this.#networks.map(encodeNetworkConfig),
    };
    writeFileAtomically(this.#path, `${JSON.stringify(file)}\n`, 0o600);
  }
}

const stored = (lease: Lease) => ({ key: lease.key, value: encodeLease(lease.attributes) });

function readable({ key, value }: z.infer<typeof leaseSchema>): Lease[] {
  const lease = decodeLease(key, value);
  return isMalformed(lease) ? [] : [lease];
}

function readableNetwork(text: string): NetworkConfig[] {
  try {
    return [parseNetworkConfig(text)];
  } catch {
    return [];
  }
}
