/**
 * The last view of the store, on disk: a daemon that restarts while the store is away serves pods from it.
 *
 * Leases are kept in the store's own schema and read back by the same codec, so a damaged or foreign file
 * is as harmless as a damaged lease. It is written soon after a change, since what a crash leaves out of it
 * has no network until the store is back; and so seldom that it takes a fixed share of the time.
 */
import { join } from 'node:path';
import { z } from 'zod/v3';
import type { Lease, MalformedLease } from '../../store/lease.ts';
import { decodeLease, encodeLease, isMalformed } from '../../store/lease-codec.ts';
import type { LeaseSnapshot } from '../../store/lease-store.ts';
import type { LeaseView } from '../../store/lease-view.ts';
import { encodeNetworkConfig, parseNetworkConfig } from '../../store/network-config.ts';
import { readFileIfThere, writeFileAtomically } from '../kernel/files.ts';
import type { Log } from '../ops/log.ts';

/** Changes come in bursts: these are written together. */
const LEAST_INTERVAL_MS = 100;
/** Writing 10,000 leases takes some 15 ms: then it is done every 1.5 s while there are changes. */
const SHARE_OF_TIME = 0.01;

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
  /** Monotonic milliseconds; the next one is not written before. */
  #notBefore = 0;

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

  /** The view changed: it will be on disk soon. */
  changed(view: LeaseView): void {
    this.#view = view;
    if (this.#timer !== undefined) return;
    const waitMs = Math.max(LEAST_INTERVAL_MS, this.#notBefore - performance.now());
    this.#timer = setTimeout(() => this.flush(), waitMs);
  }

  /** Writes what is due now. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const view = this.#view;
    if (view?.revision === undefined) return;
    this.#view = undefined;
    const begin = performance.now();
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
    const end = performance.now();
    this.#notBefore = end + (end - begin) / SHARE_OF_TIME;
  }
}
