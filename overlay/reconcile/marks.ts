/** What the next pass has to look at: gathered from whatever happened since the last one. */
import type { PassTrigger } from '../ops/recorder.ts';

export interface Marks {
  devices: boolean;
  /** Dump the peers' entries. */
  entries: boolean;
  /** Compare the whole tables, not only the elements that changed. */
  firewall: boolean;
  /** Something else is wanted: what a pass makes of it is no repair. */
  wishes: boolean;
  trigger: PassTrigger;
}

export const noMarks = (): Marks => ({
  devices: false,
  entries: false,
  firewall: false,
  wishes: false,
  trigger: 'event',
});

/** What either has to look at; the trigger is the first one's. */
export const allMarks = (a: Marks, b: Marks): Marks => ({
  devices: a.devices || b.devices,
  entries: a.entries || b.entries,
  firewall: a.firewall || b.firewall,
  wishes: a.wishes || b.wishes,
  trigger: a.trigger,
});
