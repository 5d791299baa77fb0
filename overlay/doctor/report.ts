/** What the doctor found, as data: what `vtepd doctor --json` prints. Fields are added to, never changed. */

export interface DoctorReport {
  /** Nothing failed; there may be warnings. */
  readonly healthy: boolean;
  readonly node: string;
  /** vtepd's. */
  readonly version: string;
  readonly checks: readonly CheckReport[];
}

export interface CheckReport {
  /** Stable: `store`, `port`, `cni`. */
  readonly id: string;
  readonly title: string;
  /** The worst of its findings; `unknown`: it could not be examined. */
  readonly state: 'ok' | 'warning' | 'failed' | 'unknown';
  /** What was seen, or why nothing could be. */
  readonly seen: string;
  readonly findings: readonly Finding[];
}

export interface Finding {
  /** Stable: `port-taken`. */
  readonly id: string;
  /** `failed`: pods lack their network, or will. `warning`: they work, and something is not as it should be. */
  readonly severity: 'failed' | 'warning';
  readonly cause: string;
  readonly remedy: string;
}

/** What a check comes to. */
export type Outcome =
  | { readonly seen: string; readonly findings: readonly Finding[] }
  | { readonly unknown: string };

export const failed = (id: string, cause: string, remedy: string): Finding => ({
  id,
  severity: 'failed',
  cause,
  remedy,
});

export const warning = (id: string, cause: string, remedy: string): Finding => ({
  id,
  severity: 'warning',
  cause,
  remedy,
});
