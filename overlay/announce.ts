/**
 * What others wait for: subnet.env, and the CNI configuration where the daemon installs it. Written when pods
 * first work, never before, and again when it has something new to say.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { installCni } from '../cni-shim/install.ts';
import type { Settings } from './config/settings.ts';
import type { WantedOverlay } from './desired/overlay.ts';
import { writeFileAtomically } from './kernel/files.ts';
import { type Log, messageWithCauses } from './ops/log.ts';
import { subnetFileText } from './ops/subnet-file.ts';

export class ReadyAnnouncer {
  readonly #settings: Settings;
  #masquerade: boolean;
  readonly #shimPath: string;
  readonly #log: Log;
  readonly #onAnnounced: () => void;
  #text: string | undefined;
  #installing: Promise<void> | undefined;
  /** Why others still wait; undefined once they need not. */
  #pending: string | undefined = 'what runtimes wait for is being written';

  /**
   * @param shimPath the CNI plugin as it was built
   * @param onAnnounced called when `pending` says no more
   */
  constructor(settings: Settings, shimPath: string, log: Log, onAnnounced: () => void) {
    this.#settings = settings;
    this.#masquerade = settings.overlay.masquerade;
    this.#shimPath = shimPath;
    this.#log = log;
    this.#onAnnounced = onAnnounced;
  }

  /** Told at the next call of `ready`. */
  setMasquerade(masquerade: boolean): void {
    this.#masquerade = masquerade;
  }

  /** Everything that others wait for has been written at least once. */
  get announced(): boolean {
    return this.#pending === undefined;
  }

  /** Why not everything that others wait for has been written; undefined from when it has, once. */
  get pending(): string | undefined {
    return this.#pending;
  }

  /** Pods work, with this network. What cannot be written is logged, and tried again at the next call. */
  ready(wanted: WantedOverlay): void {
    const { files } = this.#settings;
    const text = subnetFileText(wanted, this.#masquerade);
    if (text === this.#text) return;
    try {
      mkdirSync(dirname(files.subnetFile), { recursive: true });
      writeFileAtomically(files.subnetFile, text, 0o644);
    } catch (error) {
      this.#log.error('the subnet file cannot be written', { path: files.subnetFile, error });
      this.#failed(`the subnet file cannot be written: ${messageWithCauses(error)}`);
      return;
    }
    if (this.#text === undefined) this.#log.info('ready: pods can be attached', { subnet: wanted.lease.key });
    this.#text = text;
    this.#installing ??= this.#install(wanted.bridge.name).catch((error: unknown) => {
      this.#installing = undefined;
      this.#text = undefined;
      this.#log.error('the CNI plugin cannot be installed', { error });
      this.#failed(`the CNI plugin cannot be installed: ${messageWithCauses(error)}`);
    });
  }

  #failed(reason: string): void {
    if (this.#pending !== undefined) this.#pending = reason;
  }

  /** Resolves when an installation under way is over. */
  async close(): Promise<void> {
    await this.#installing;
  }

  async #install(bridge: string): Promise<void> {
    const { cni, files } = this.#settings;
    if (cni.confDir !== undefined) {
      const { confDir, binDir, confFile } = cni;
      const paths = await installCni({
        confDir,
        binDir,
        confFile,
        shimPath: this.#shimPath,
        socketPath: files.socket,
        bridge,
        network: cni.network,
      });
      this.#log.info('installed the CNI plugin', { path: paths.join(' ') });
    }
    this.#pending = undefined;
    this.#onAnnounced();
  }
}
