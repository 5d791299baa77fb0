/**
 * The last view of the store, on disk: a daemon that restarts while the store is away serves pods from it.
 *
 * Leases are kept in the store's own schema and read back by the same codec, so a damaged or foreign file
 * is as harmless as a damaged lease. It is written at most every `intervalMs`, so that a cluster in motion
 * costs no disk: what it lacks, the store tells when it is back.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { Lease, MalformedLease } from '../../store/lease.ts';
import { decodeLease, encodeLease, isMalformed } from '../../store/lease-codec.ts';
import type { LeaseSnapshot } from '../../store/lease-store.ts';
import type { LeaseView } from '../../store/lease-view.ts';
import { encodeNetworkConfig, parseNetworkConfig } from '../../store/network-config.ts';
import { readFileIfThere, writeFileAtomically } from '../kernel/files.ts';
import type { Log } from '../ops/log.ts';

/** Writing 10,000 leases takes some 15 ms, so once in ten seconds is nothing. */
const INTERVAL_MS = 10_000;

const fileSchema = z.object({
  /** Which store it is of: another one's leases are no use. */
  store: z.string(),
  revision: z.string(),
  network: z.string().optional(),
  leases: z.array(z.tuple([z.string(), z.string()])),
});

export class SnapshotCache {
  readonly #path: string;
  readonly #store: string;
  readonly #log: Log;
  #timer: NodeJS.Timeout | undefined;
  #view: LeaseView | undefined;
  #writtenAt = Number.NEGATIVE_INFINITY;

  /** @param store what identifies the store: its kind and prefix or path */
  constructor(stateDir: string, store: string, log: Log) {
    this.#path = join(stateDir, 'leases.json');
    this.#store = store;
    this.#log = log;
  }

  read(): LeaseSnapshot | undefined {
    try {
      const text = readFileIfThere(this.#path);
      if (text === undefined) return undefined;
      const file = fileSchema.parse(JSON.parse(text));
      if (file.store !== this.#store) return undefined;
      const leases = new Map<string, Lease>();
      const malformed: MalformedLease[] = [];
      for (const [key, value] of file.leases) {
        const decoded = decodeLease(key, value);
        if (isMalformed(decoded)) malformed.push(decoded);
        else leases.set(key, decoded);
      }
      const network = file.network === undefined ? undefined : { config: parseNetworkConfig(file.network) };
      return { revision: file.revision, leases, malformed, network };
    } catch (error) {
      this.#log.warn('the cached leases cannot be used', { path: this.#path, error });
      return undefined;
    }
  }

  /** The view changed: it will be on disk within `INTERVAL_MS`. */
  changed(view: LeaseView): void {
    this.#view = view;
    if (this.#timer !== undefined) return;
    const waitMs = Math.max(0, this.#writtenAt + INTERVAL_MS - performance.now());
    this.#timer = setTimeout(() => this.flush(), waitMs);
  }

  /** Writes what is due now. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const view = this.#view;
    if (view?.revision === undefined) return;
    this.#view = undefined;
    this.#writtenAt = performance.now();
    const { network } = view;
    const file: z.input<typeof fileSchema> = {
      store: this.#store,
      revision: view.revision,
      ...(network !== undefined && 'config' in network && { network: encodeNetworkConfig(network.config) }),
      leases: Array.from(view.leases, ([key, lease]) => [key, encodeLease(lease.attributes)]),
    };
    try {
      writeFileAtomically(this.#path, JSON.stringify(file), 0o600);
    } catch (error) {
      this.#log.warn('the leases cannot be cached', { path: this.#path, error });
    }
  }
}
