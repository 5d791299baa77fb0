/**
 * What can go wrong with a store: one class a failure, a stable `code`, the cause kept. Callers branch on
 * the class or the code, never on the message; a message says what is wrong and what to do.
 */
import type { LeaseAttributes } from './lease.ts';

abstract class LeaseError extends Error {
  abstract readonly code: string;
  /** Whether the same call can succeed later without anybody changing anything. */
  abstract readonly retryable: boolean;
}

/** The store did not answer, or answered with a failure of its own. */
export class StoreUnavailableError extends LeaseError {
  override readonly name = 'StoreUnavailableError';
  readonly code = 'VTEPD_STORE_UNAVAILABLE';
  readonly retryable = true;
}

/** The store refuses us: wrong credentials, certificate or permission. Retried all the same, for it may be mended. */
export class StoreAccessError extends LeaseError {
  override readonly name = 'StoreAccessError';
  readonly code = 'VTEPD_STORE_ACCESS';
  readonly retryable = true;
}

/** The stored network configuration cannot be used; `field` is its JSON name. */
export class NetworkConfigError extends LeaseError {
  override readonly name = 'NetworkConfigError';
  readonly code = 'VTEPD_NETWORK_CONFIG';
  readonly retryable = false;
  readonly field: string;
  constructor(field: string, problem: string, options?: ErrorOptions) {
    super(`network configuration: ${field}: ${problem}`, options);
    this.field = field;
  }
}

/** Every subnet between SubnetMin and SubnetMax is leased. */
export class NoFreeSubnetError extends LeaseError {
  override readonly name = 'NoFreeSubnetError';
  readonly code = 'VTEPD_NO_FREE_SUBNET';
  readonly retryable = true;
}

/** Our remembered lease carries our public address but another node's VTEP: two daemons with one address. */
export class PublicAddressConflictError extends LeaseError {
  override readonly name = 'PublicAddressConflictError';
  readonly code = 'VTEPD_PUBLIC_ADDRESS_CONFLICT';
  readonly retryable = true;
  readonly key: string;
  readonly holder: LeaseAttributes;
  constructor(message: string, key: string, holder: LeaseAttributes) {
    super(message);
    this.key = key;
    this.holder = holder;
  }
}

/** The lease is not ours any more: it `expired` (nobody holds it), or was `taken` (another node does). */
export class LeaseLostError extends LeaseError {
  override readonly name = 'LeaseLostError';
  readonly code = 'VTEPD_LEASE_LOST';
  readonly retryable = false;
  readonly how: 'expired' | 'taken';
  readonly holder: LeaseAttributes | undefined;
  constructor(message: string, how: 'expired' | 'taken', holder?: LeaseAttributes) {
    super(message);
    this.how = how;
    this.holder = holder;
  }
}

/** Changes were missed or may have been: only a fresh snapshot tells the truth. */
export class HistoryLostError extends LeaseError {
  override readonly name = 'HistoryLostError';
  readonly code = 'VTEPD_HISTORY_LOST';
  readonly retryable = false;
  readonly how: 'compacted' | 'rewound' | 'gap';
  constructor(message: string, how: 'compacted' | 'rewound' | 'gap', options?: ErrorOptions) {
    super(message, options);
    this.how = how;
  }
}

export type StoreError =
  | StoreUnavailableError
  | StoreAccessError
  | NetworkConfigError
  | NoFreeSubnetError
  | PublicAddressConflictError
  | LeaseLostError
  | HistoryLostError;

export const isStoreError = (error: unknown): error is StoreError => error instanceof LeaseError;
