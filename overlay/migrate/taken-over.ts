/**
 * What this node took over from flannel, in the state directory: the daemon goes on under flannel's names, and
 * `vtepd migrate --back` knows what was whose. Written before anything is changed; `complete` once all is.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod/v3';
import type { Settings } from '../config/settings.ts';
import { readFileIfThere, writeFileAtomically } from '../kernel/files.ts';

const schema = z.object({
  from: z.literal('flannel'),
  /** `flannel.<VNI>`; absent with the host-gw backend, which has none. */
  device: z.string().optional(),
  bridge: z.string(),
  /** The CNI network's name, under which runtimes and plugins know the pods. */
  network: z.string(),
  /** flannel's CNI configuration, before it was set aside. */
  conflist: z.string().optional(),
  /** Pods and addresses too; else they are the business of flannel's CNI plugins still. */
  pods: z.boolean(),
  /** The nodes' ends of the pods' interfaces, as they are called now and as they were. */
  ports: z.array(z.object({ hostInterface: z.string(), was: z.string() })),
  complete: z.boolean(),
});

export type TakenOver = Readonly<z.infer<typeof schema>>;

/** What a runtime reads no configuration from, and what people understand. */
export const SET_ASIDE = '.before-vtepd';

/** The daemon goes on under the names that it found. */
export function withTakenOver(settings: Settings, record: TakenOver | undefined): Settings {
  if (record === undefined) return settings;
  const { device, bridge, network, pods } = record;
  return {
    ...settings,
    overlay: { ...settings.overlay, bridge, device: device ?? settings.overlay.device },
    cni: { ...settings.cni, ...(pods && { network }) },
  };
}

const pathIn = (stateDir: string): string => join(stateDir, 'taken-over.json');

/** The record cannot be read: what is flannel's and what is ours is not known any more. */
export class TakenOverError extends Error {
  override readonly name = 'TakenOverError';
  readonly code = 'VTEPD_TAKEN_OVER';
}

/** @returns undefined where nothing was taken over @throws TakenOverError */
export function readTakenOver(stateDir: string): TakenOver | undefined {
  const path = pathIn(stateDir);
  const text = readFileIfThere(path);
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new TakenOverError(
      `${path} cannot be read: restore it, or remove it to have flannel's devices looked at anew`,
      { cause },
    );
  }
}

export const writeTakenOver = (stateDir: string, record: TakenOver): void =>
  writeFileAtomically(pathIn(stateDir), `${JSON.stringify(record, undefined, 2)}\n`, 0o600);

export const forgetTakenOver = (stateDir: string): void => rmSync(pathIn(stateDir), { force: true });
