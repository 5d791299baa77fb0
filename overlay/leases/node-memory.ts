/**
 * What this node remembers over restarts and reboots, in the state directory: its MAC addresses, so that
 * peers keep their entries, and the lease it held, so that it gets the same subnet again.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { type Family, isUnicastMac, localMac, type Mac, tryMac } from '../../store/address.ts';
import type { Lease } from '../../store/lease.ts';
import { decodeLease, encodeLease, isMalformed } from '../../store/lease-codec.ts';
import { readFileIfThere, writeFileAtomically } from '../kernel/files.ts';
import type { Log } from '../ops/log.ts';

const macSchema = z.string().transform((text, context): Mac => {
  const mac = tryMac(text);
  if (mac !== undefined && isUnicastMac(mac)) return mac;
  context.addIssue('not the MAC address of an interface');
  return z.NEVER;
});

const fileSchema = z.object({
  vtepMAC: z.object({ ipv4: macSchema, ipv6: macSchema }),
  bridgeMAC: macSchema,
  lease: z.object({ key: z.string(), value: z.string() }).optional(),
});

export interface NodeIdentity {
  readonly vtepMac: Readonly<Record<Family, Mac>>;
  readonly bridgeMac: Mac;
}

export class NodeMemory {
  readonly identity: NodeIdentity;
  readonly #path: string;
  #lease: Lease | undefined;

  /** @param random fills an array with random bytes */
  constructor(stateDir: string, random: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array, log: Log) {
    this.#path = join(stateDir, 'node.json');
    const known = this.#read(log);
    if (known !== undefined) {
      this.identity = { vtepMac: known.vtepMAC, bridgeMac: known.bridgeMAC };
      const lease = known.lease === undefined ? undefined : decodeLease(known.lease.key, known.lease.value);
      this.#lease = lease === undefined || isMalformed(lease) ? undefined : lease;
      return;
    }
    const mac = (): Mac => localMac(random(new Uint8Array(6)));
    this.identity = { vtepMac: { ipv4: mac(), ipv6: mac() }, bridgeMac: mac() };
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
    const { vtepMac, bridgeMac } = this.identity;
    const file: z.input<typeof fileSchema> = {
      vtepMAC: vtepMac,
      bridgeMAC: bridgeMac,
      ...(this.#lease && { lease: { key: this.#lease.key, value: encodeLease(this.#lease.attributes) } }),
    };
    writeFileAtomically(this.#path, `${JSON.stringify(file)}\n`, 0o600);
  }
}
