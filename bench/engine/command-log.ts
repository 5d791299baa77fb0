/** The exact commands of a run, for its report: each once, with how often it was run. */
import type { ReportedCommand } from '../report/schema.ts';

export class CommandLog {
  private readonly times = new Map<string, ReportedCommand>();

  /** @param what it was for: the contestant's id, then the quantity's or what was set up */
  add(what: string, argv: readonly string[]): void {
    // How much was sent is chosen by the speed that was measured: the last one stands for all.
    const key = JSON.stringify([what, argv.map((word) => word.replace(/^\d{4,}$/, 'N'))]);
    const times = (this.times.get(key)?.times ?? 0) + 1;
    this.times.set(key, { what, argv: [...argv], times });
  }

  get commands(): ReportedCommand[] {
    return [...this.times.values()];
  }
}
