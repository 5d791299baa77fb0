/** What others did to the machine while it was measured, where that is worth a word. Pure. */
import type { ReportedMachine } from './schema.ts';

/** Others' work from here on is. */
const NOISY_BACKGROUND_PERCENT = 10;
const NOISY_STEAL_PERCENT = 2;

/** Sentences without their first capital. */
export function noiseOf({ backgroundPercent, stealPercent }: ReportedMachine): string[] {
  const found: string[] = [];
  if (backgroundPercent !== null && backgroundPercent > NOISY_BACKGROUND_PERCENT) {
    found.push(
      `other programs kept ${backgroundPercent.toFixed(0)} % of the processors busy between measurements: throughput is lower, and processor time higher, than on an idle machine`,
    );
  }
  if (stealPercent > NOISY_STEAL_PERCENT) {
    found.push(`a hypervisor gave ${stealPercent.toFixed(1)} % of the time to other machines`);
  }
  return found;
}
