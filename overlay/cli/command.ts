/** What a command of `vtepd` is: one file of this folder exports one. */

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

export interface CommandIo {
  /** Writes to standard output as it stands: line ends are the caller's. */
  readonly out: (text: string) => void;
  /** The same for standard error: what is wrong, and progress. */
  readonly err: (text: string) => void;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Aborts on the first SIGINT or SIGTERM; a second one ends the process at once. */
  readonly signal: AbortSignal;
  /** From here on this value is replaced wherever an error of ours is printed. */
  readonly hide: (secret: string) => void;
}

export interface Command {
  readonly name: string;
  /** One line for `vtepd --help`. */
  readonly summary: string;
  /** What `vtepd NAME --help` prints. */
  readonly usage: string;
  /**
   * Resolves with the exit code. `argv` is what follows the command's name; `--help` never gets here.
   * @throws UsageError, SettingsError: exit code 2; anything else: exit code 1. Both are printed by the caller.
   */
  run(argv: readonly string[], io: CommandIo): Promise<number>;
}
