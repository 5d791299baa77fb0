/**
 * The configuration changes while the daemon runs: on SIGHUP, and when the file's content changes.
 *
 *     SIGHUP, file --> load, check as `config check` does --refused--> all stays; said once, and in status
 *                                |
 *                                '--> what is live is applied; what is read at the start only is named
 *
 * One at a time; what comes meanwhile is one more. The file's directory is watched, since editors and
 * Kubernetes put a new file in the place of the old one.
 */
import { createHash } from 'node:crypto';
import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import type { CheckedFiles } from './config/check-files.ts';
import { compareOptions } from './config/fingerprint.ts';
import type { LoadedSettings } from './config/load-settings.ts';
import type { OptionName } from './config/options.ts';
import type { Settings } from './config/settings.ts';
import { SettingsError, type SettingsProblem } from './config/settings-error.ts';
import type { TakenOver } from './migrate/taken-over.ts';
import { type Log, messageWithCauses } from './ops/log.ts';

/** How the process has its configuration. */
export interface ConfigurationSource {
  /** What the daemon starts with. */
  readonly loaded: LoadedSettings;
  /** What this node took over, whose names are in the settings already; absent: nothing. */
  readonly takenOver?: TakenOver | undefined;
  /** Absent: flags and environment alone, which never change. */
  readonly file?: string | undefined;
  /** The same sources read anew. From then on nothing that it holds as a secret is printed. @throws SettingsError */
  readonly load: () => Promise<LoadedSettings>;
  /** Level and format from now on. */
  readonly setLog: (log: Settings['log']) => void;
  /** Has this called for each SIGHUP from now on. */
  readonly onHangup: (listener: () => void) => void;
}

export interface ReloadOptions {
  readonly source: ConfigurationSource;
  readonly log: Log;
  readonly checkFiles: (settings: Settings) => Promise<CheckedFiles>;
  /**
   * Applies what is live of the settings. The names are those of options that changed; the store's
   * certificates may have changed under the same names.
   * @returns what could not be applied, the rest is
   */
  readonly apply: (settings: Settings, changed: readonly OptionName[]) => Promise<readonly SettingsProblem[]>;
  /** Hears of each reading: before it, and when it is over. */
  readonly onReload?: ((state: 'begins' | 'ended') => void) | undefined;
}

export interface ReloadState {
  readonly file: string | undefined;
  /** Wall-clock milliseconds. */
  readonly appliedAt: number;
  /** Why the latest configuration, or a part of it, is not in use. */
  readonly problem: string | undefined;
  /** Options that changed since the start and take effect with the next one. */
  readonly needRestart: readonly OptionName[];
}

/** An editor writes in several steps; an empty file in between would be a configuration too. */
const SETTLE_MS = 250;

export class ConfigReloader {
  readonly #options: ReloadOptions;
  #closed = false;
  #current: LoadedSettings;
  #state: ReloadState;
  /** A hash of the file as it was read last. */
  #content: string | undefined;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #again = false;

  constructor(options: ReloadOptions) {
    const { source } = options;
    this.#options = options;
    this.#current = source.loaded;
    this.#state = { file: source.file, appliedAt: Date.now(), problem: undefined, needRestart: [] };
    this.#content = this.#read();
    source.onHangup(() => void this.reload('SIGHUP'));
    this.#watch();
  }

  get state(): ReloadState {
    return this.#state;
  }

  /** Reads and applies the configuration now. Never rejects: what goes wrong is logged and in `state`. */
  reload(cause: 'SIGHUP' | 'file'): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (this.#running !== undefined) {
      this.#again = true;
      return this.#running;
    }
    this.#running = this.#reloadUntilDone(cause).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watcher?.close();
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #reloadUntilDone(cause: string): Promise<void> {
    this.#options.onReload?.('begins');
    try {
      do {
        this.#again = false;
        await this.#reloadOnce(cause);
      } while (this.#again && !this.#closed);
    } finally {
      this.#options.onReload?.('ended');
    }
  }

  async #reloadOnce(cause: string): Promise<void> {
    const { source, log, checkFiles, apply } = this.#options;
    this.#content = this.#read();
    let loaded: LoadedSettings;
    try {
      loaded = await source.load();
      const { problems, warnings } = await checkFiles(loaded.settings);
      if (problems.length > 0) throw new SettingsError(problems);
      for (const warning of [...loaded.warnings, ...warnings]) log.warn(warning);
    } catch (error) {
      this.#refused(messageWithCauses(error));
      return;
    }
    const started = source.loaded.fingerprints;
    const changes = compareOptions(started, this.#current.fingerprints, loaded.fingerprints);
    const problems = await apply(loaded.settings, changes.live);
    this.#current = loaded;
    const problem = problems.length === 0 ? undefined : new SettingsError(problems).message;
    this.#state = { ...this.#state, appliedAt: Date.now(), problem, needRestart: changes.needRestart };
    log.info('the configuration was read again', {
      reason: cause,
      changed: changes.live.join(' ') || 'nothing',
    });
    if (problem !== undefined) log.error('a part of the configuration cannot be used', { reason: problem });
    if (changes.needRestart.length > 0) {
      log.warn('these options take effect when vtepd is restarted', {
        options: changes.needRestart.join(' '),
      });
    }
  }

  #refused(problem: string): void {
    if (problem !== this.#state.problem) {
      this.#options.log.error('the configuration cannot be used; the one in use stays', { reason: problem });
    }
    this.#state = { ...this.#state, problem };
  }

  #watch(): void {
    const { source, log } = this.#options;
    const { file } = source;
    if (file === undefined) return;
    try {
      this.#watcher = watch(dirname(file), () => this.#settle());
      this.#watcher.on('error', (error) => {
        log.warn('the configuration file is watched no more; send SIGHUP after a change', {
          path: file,
          error,
        });
        this.#watcher?.close();
      });
    } catch (error) {
      log.warn('the configuration file cannot be watched; send SIGHUP after a change', { path: file, error });
    }
  }

  /** The directory may hold busy files of others: only new content of ours counts. */
  #settle(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const content = this.#read();
      // Gone for the moment it takes to put another in its place; without one, a start would fail.
      if (content !== undefined && content !== this.#content) void this.reload('file');
    }, SETTLE_MS);
  }

  #read(): string | undefined {
    const { file } = this.#options.source;
    try {
      return file === undefined ? undefined : createHash('sha256').update(readFileSync(file)).digest('hex');
    } catch {
      return undefined;
    }
  }
}
