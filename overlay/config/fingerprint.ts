/** What tells two configurations apart, without holding any secret of theirs. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { OPTION_NAMES, type OptionName, optionOf } from './options.ts';
import { Secret } from './secret.ts';
import type { StoreSettings } from './settings.ts';

/** A text for each option: the same where the value is the same. */
export type Fingerprints = ReadonlyMap<OptionName, string>;

export const fingerprintsOf = (values: Readonly<Record<string, unknown>>): Fingerprints =>
  new Map(OPTION_NAMES.map((name) => [name, fingerprint(values[name])] as const));

export interface OptionChanges {
  /** Since what was taken up last; in the table's order. */
  readonly live: readonly OptionName[];
  /** Since the start, of those that are read then only. */
  readonly needRestart: readonly OptionName[];
}

export function compareOptions(
  started: Fingerprints,
  current: Fingerprints,
  now: Fingerprints,
): OptionChanges {
  const isLive = (name: OptionName): boolean => optionOf(name).live === true;
  return {
    live: OPTION_NAMES.filter((name) => isLive(name) && current.get(name) !== now.get(name)),
    needRestart: OPTION_NAMES.filter((name) => !isLive(name) && started.get(name) !== now.get(name)),
  };
}

/** Changes with whatever a store is opened by, the contents of its certificates' files among it. */
export function storeFingerprint(settings: StoreSettings): string {
  if (settings.kind !== 'etcd') return fingerprint(settings);
  const { certFile, keyFile } = settings.clientCertificate ?? {};
  const files = [settings.caFile, certFile, keyFile].map((path) =>
    path === undefined ? '' : hashOf(readFileSync(path)),
  );
  return fingerprint([settings, files]);
}

function fingerprint(value: unknown): string {
  const text = JSON.stringify(value, function (this: Record<string, unknown>, key, shown: unknown) {
    // `shown` is what toJSON made of it.
    const original = this[key];
    if (original instanceof Secret) return `secret ${hashOf(original.reveal())}`;
    return original instanceof RegExp ? String(original) : shown;
  });
  return hashOf(text ?? '');
}

const hashOf = (content: string | Buffer): string => createHash('sha256').update(content).digest('hex');
