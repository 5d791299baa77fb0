/**
 * Progress on standard error: on a terminal one line that is rewritten, with the share that is done and the
 * time that is left; elsewhere a line whenever something else begins.
 */
export interface Progress {
  /** Something else begins: it stays to be read. */
  phase(text: string): void;
  /** What is being done now. */
  begun(text: string): void;
  /** @param share of everything, 0 to 1 */
  done(share: number): void;
  /** The line goes: what follows is printed on an empty one. */
  end(): void;
}

const REWIND = '\r\u001b[2K';
const WIDTH = 100;

export function printedProgress(
  err: (text: string) => void,
  isTerminal: boolean,
  now: () => number,
): Progress {
  const beginMs = now();
  let share = 0;
  let doing = '';
  const draw = (): void => {
    if (!isTerminal) return;
    const passed = now() - beginMs;
    const left = share > 0.02 ? `, ${timeText((passed / share) * (1 - share))} left` : '';
    err(`${REWIND}${`  ${(share * 100).toFixed(0).padStart(3)} %${left}  ${doing}`.slice(0, WIDTH)}`);
  };
  return {
    phase(text) {
      err(`${isTerminal ? REWIND : ''}${text}\n`);
      draw();
    },
    begun(text) {
      doing = text;
      draw();
    },
    done(all) {
      share = Math.min(1, all);
      draw();
    },
    end() {
      if (isTerminal) err(REWIND);
    },
  };
}

/** `45 s`, `6 min` */
function timeText(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
