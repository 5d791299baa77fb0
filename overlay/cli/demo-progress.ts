/**
 * The demo's progress: a line a step. On a terminal the line stands there while the step runs and is
 * rewritten when it has ended; elsewhere only the result is printed.
 */
export interface Progress {
  /** Runs a step; its line ends with what it returns in `said`. A step that throws is marked as failed. */
  step<T>(name: string, doing: string, work: () => Promise<StepResult<T>>): Promise<T>;
}

export interface StepResult<T> {
  readonly value: T;
  readonly said: string;
  /** It ended, but not as it should have. */
  readonly bad?: boolean | undefined;
}

export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
}

const plain = (text: string): string => text;
export const NO_PAINT: Paint = { bold: plain, dim: plain, good: plain, bad: plain };

const sgr = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`;
export const ANSI_PAINT: Paint = { bold: sgr(1), dim: sgr(2), good: sgr(32), bad: sgr(31) };

/** Back to the line's beginning, and clear it. */
const REWIND = '\r\u001b[2K';
const NAME_WIDTH = 9;
const SAID_WIDTH = 84;

/** Steps are run one after the other. */
export function printedProgress(out: (text: string) => void, paint: Paint, isTerminal: boolean): Progress {
  const line = (mark: string, name: string, said: string, durationMs: number) =>
    out(
      `${isTerminal ? REWIND : ''}  ${mark} ${name.padEnd(NAME_WIDTH)} ${said.padEnd(SAID_WIDTH)} ${paint.dim(inMs(durationMs))}\n`,
    );
  return {
    async step(name, doing, work) {
      if (isTerminal) out(`  ${paint.dim('…')} ${name.padEnd(NAME_WIDTH)} ${paint.dim(doing)}`);
      const begin = performance.now();
      try {
        const { value, said, bad } = await work();
        line(bad === true ? paint.bad('✗') : paint.good('✓'), name, said, performance.now() - begin);
        return value;
      } catch (error) {
        line(paint.bad('✗'), name, doing, performance.now() - begin);
        throw error;
      }
    },
  };
}

export const silentProgress: Progress = {
  step: async (_name, _doing, work) => (await work()).value,
};

const inMs = (durationMs: number): string => `${durationMs.toFixed(0).padStart(6)} ms`;
