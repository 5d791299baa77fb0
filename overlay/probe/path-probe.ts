/**
 * What is known of the underlay path to one address, and what to send next to know more: a state machine
 * without clock or socket. It takes the outcomes of attempts and gives the next one.
 *
 * An attempt is one echo request of the size in question and, mostly, a smaller one beside it, the reference.
 * The large one lost while the reference is answered is a strike against the size; both lost says nothing of
 * sizes. Three strikes and a size counts as swallowed, so that plain loss does not.
 *
 *            full size lost              3 strikes                  one byte apart
 *     watch -----------------> verify -----------------> search -------------------> confirm --> watch
 *       ^ |                      | passes, or silent       | silent                     |      (reduced)
 *       | '----------------------'<------------------------'<---------------------------'
 *       |   reduced: a larger size passed
 *       '---------------- raise <------- watch          several in a row, and it is believed
 *
 * A path that answers nothing is `unknown` until it has answered once, and not reachable afterwards; its MTU
 * stays what it was. One that answers small packets only, and none that every path must carry, is filtered
 * rather than narrow: nothing is concluded from it.
 */

/** A size is swallowed after so many attempts that only the reference survived. */
const STRIKES = 3;
/** After so many attempts in a row without any answer nothing more is expected now. */
const SILENCES = 3;
/** So many answers in a row to a larger size, before it is used again. */
const FIRST_RAISE_ANSWERS = 3;
/** A path that comes and goes has to show ever more, up to this. */
const MAX_RAISE_ANSWERS = 96;
/** So many regular checks at full size without a fall, and it is no longer one that comes and goes. */
const CALM_CHECKS = 20;
/** The size of ping's packets: where ICMP passes at all, these do. */
export const REFERENCE_BYTES = 84;

export interface Attempt {
  readonly sizeBytes: number;
  readonly referenceBytes: number | undefined;
  /** One byte more than another path was found to carry: most likely too much, so one strike does. */
  readonly isGuess?: boolean;
}

export interface Outcome {
  readonly passed: boolean;
  /** False where there was no reference. */
  readonly referencePassed: boolean;
}

/** `soon`: a question is open. `later`: at the next regular check. */
export type Pace = 'soon' | 'later';

export interface PathFindings {
  /** Undefined: nothing was ever answered, so this cannot be known. */
  readonly reachable: boolean | undefined;
  /** The largest size known to pass, at most the full one. Undefined: not known, or filtered. */
  readonly mtuBytes: number | undefined;
  /** It answers, but no packet of a size that every path carries. */
  readonly filtered: boolean;
}

type Task =
  | { readonly kind: 'watch' }
  | {
      readonly kind: 'verify';
      readonly sizeBytes: number;
      readonly strikes: number;
      readonly silences: number;
    }
  | {
      readonly kind: 'search';
      /** Passes. Undefined: the floor has not been tried yet. */
      readonly low: number | undefined;
      /** Does not pass. */
      readonly high: number;
      readonly strikes: number;
      readonly silences: number;
    }
  | { readonly kind: 'confirm'; readonly low: number; readonly high: number; readonly silences: number }
  | { readonly kind: 'raise'; readonly sizeBytes: number; readonly answers: number };

const WATCH: Task = { kind: 'watch' };

export class PathProbe {
  readonly #minBytes: number;
  #fullBytes: number;
  #task: Task = WATCH;
  #reachable: boolean | undefined;
  #mtuBytes: number | undefined;
  #filtered = false;
  /** Regular checks of a path that does not carry the full size try that and something smaller by turns. */
  #triesFull = true;
  #raiseAnswers = FIRST_RAISE_ANSWERS;
  #calmChecks = CALM_CHECKS;

  /**
   * @param minBytes what every path of the family must carry
   * @param fullBytes the largest packet that the data path sends
   */
  constructor(minBytes: number, fullBytes: number) {
    this.#minBytes = minBytes;
    this.#fullBytes = fullBytes;
  }

  get findings(): PathFindings {
    return { reachable: this.#reachable, mtuBytes: this.#mtuBytes, filtered: this.#filtered };
  }

  /** It is known that the full size does not pass, and being found out what does. */
  get isSearching(): boolean {
    return this.#task.kind === 'search' || this.#task.kind === 'confirm';
  }

  get fullBytes(): number {
    return this.#fullBytes;
  }

  /** The data path sends packets of another size now; an attempt under way is void. A smaller MTU that was found stays. */
  setFull(fullBytes: number): void {
    if (fullBytes === this.#fullBytes) return;
    if (!this.#isReduced || (this.#mtuBytes ?? 0) >= fullBytes) this.#mtuBytes = undefined;
    this.#fullBytes = fullBytes;
    this.#filtered = false;
    this.#task = WATCH;
  }

  /** @param hintBytes what another path was found to carry: likely this one's, too */
  attempt(hintBytes?: number): Attempt {
    const task = this.#task;
    switch (task.kind) {
      case 'watch':
        return this.#watchAttempt();
      case 'verify':
        return { sizeBytes: task.sizeBytes, referenceBytes: REFERENCE_BYTES };
      case 'search':
        return this.#searchAttempt(task.low, task.high, hintBytes);
      case 'confirm':
        return { sizeBytes: task.high, referenceBytes: task.low };
      case 'raise':
        return { sizeBytes: task.sizeBytes, referenceBytes: this.#mtuBytes };
    }
  }

  /** What came of an attempt. */
  conclude(attempt: Attempt, { passed, referencePassed }: Outcome): Pace {
    if (passed || referencePassed) this.#reachable = true;
    const task = this.#task;
    switch (task.kind) {
      case 'watch':
        return this.#watched(attempt, passed, referencePassed);
      case 'verify': {
        if (passed) return this.#passedAgain(task.sizeBytes);
        if (!referencePassed) return this.#noAnswer(task);
        const strikes = task.strikes + 1;
        if (strikes < STRIKES) return this.#go({ ...task, strikes, silences: 0 });
        if (task.sizeBytes <= this.#floorBytes) return this.#onlySmall();
        return this.#search(undefined, task.sizeBytes);
      }
      case 'search': {
        if (passed) return this.#search(attempt.sizeBytes, task.high);
        if (!referencePassed) return this.#noAnswer(task);
        const strikes = task.strikes + 1;
        if (strikes < STRIKES && attempt.isGuess !== true) return this.#go({ ...task, strikes, silences: 0 });
        if (attempt.sizeBytes <= this.#floorBytes) return this.#onlySmall();
        return this.#search(task.low, attempt.sizeBytes);
      }
      case 'confirm':
        // It passes after all: the search was misled, by loss or by a path that just changed.
        if (passed) return this.#verify(this.#fullBytes);
        return referencePassed ? this.#reduce(task.low) : this.#noAnswer(task);
      case 'raise':
        if (!passed) return this.#rest();
        if (task.answers + 1 < this.#raiseAnswers) return this.#go({ ...task, answers: task.answers + 1 });
        return this.#raise(task.sizeBytes);
    }
  }

  get #isReduced(): boolean {
    return this.#mtuBytes !== undefined && this.#mtuBytes < this.#fullBytes;
  }

  get #floorBytes(): number {
    return Math.min(this.#minBytes, this.#fullBytes);
  }

  #watchAttempt(): Attempt {
    const mtuBytes = this.#mtuBytes;
    if (this.#filtered && !this.#triesFull) {
      return { sizeBytes: this.#floorBytes, referenceBytes: REFERENCE_BYTES };
    }
    if (mtuBytes === undefined || !this.#isReduced) {
      // One that is known to be well is asked with a single packet.
      const isWell = mtuBytes !== undefined && this.#reachable === true;
      return { sizeBytes: this.#fullBytes, referenceBytes: isWell ? undefined : REFERENCE_BYTES };
    }
    return { sizeBytes: this.#triesFull ? this.#fullBytes : mtuBytes + 1, referenceBytes: mtuBytes };
  }

  #watched(attempt: Attempt, passed: boolean, referencePassed: boolean): Pace {
    this.#triesFull = !this.#triesFull;
    if (this.#isReduced) {
      if (passed) return this.#go({ kind: 'raise', sizeBytes: attempt.sizeBytes, answers: 1 });
      if (referencePassed || this.#reachable !== true) return 'later';
      return this.#verify(this.#mtuBytes ?? this.#fullBytes);
    }
    if (passed && attempt.sizeBytes < this.#fullBytes) {
      this.#filtered = false;
      return this.#search(attempt.sizeBytes, this.#fullBytes);
    }
    if (passed) return this.#passedAgain(attempt.sizeBytes);
    if (this.#filtered || (!referencePassed && this.#reachable !== true)) return 'later';
    return this.#verify(attempt.sizeBytes, referencePassed ? 1 : 0);
  }

  #passedAgain(sizeBytes: number): Pace {
    this.#filtered = false;
    this.#mtuBytes = sizeBytes;
    if (sizeBytes === this.#fullBytes) this.#calmChecks++;
    return this.#rest();
  }

  #reduce(sizeBytes: number): Pace {
    this.#raiseAnswers =
      this.#calmChecks < CALM_CHECKS
        ? Math.min(2 * this.#raiseAnswers, MAX_RAISE_ANSWERS)
        : FIRST_RAISE_ANSWERS;
    this.#mtuBytes = sizeBytes;
    return this.#rest();
  }

  #raise(sizeBytes: number): Pace {
    this.#calmChecks = 0;
    if (sizeBytes < this.#fullBytes) return this.#search(sizeBytes, this.#fullBytes);
    this.#mtuBytes = sizeBytes;
    return this.#rest();
  }

  /** Something gets through, but nothing that a real path would have to refuse. */
  #onlySmall(): Pace {
    this.#filtered = true;
    this.#mtuBytes = undefined;
    return this.#rest();
  }

  #verify(sizeBytes: number, strikes = 0): Pace {
    return this.#go({ kind: 'verify', sizeBytes, strikes, silences: 0 });
  }

  #search(low: number | undefined, high: number): Pace {
    if (low !== undefined && high - low <= 1) return this.#go({ kind: 'confirm', low, high, silences: 0 });
    return this.#go({ kind: 'search', low, high, strikes: 0, silences: 0 });
  }

  #noAnswer(task: Extract<Task, { silences: number }>): Pace {
    const silences = task.silences + 1;
    if (silences < SILENCES) return this.#go({ ...task, silences });
    if (this.#reachable !== undefined) this.#reachable = false;
    return this.#rest();
  }

  #searchAttempt(low: number | undefined, high: number, hintBytes: number | undefined): Attempt {
    const from = low ?? this.#floorBytes;
    const of = (sizeBytes: number): Attempt => ({ sizeBytes, referenceBytes: REFERENCE_BYTES });
    if (hintBytes !== undefined && from < hintBytes && hintBytes < high) return of(hintBytes);
    if (low === undefined) return of(from);
    return low === hintBytes ? { ...of(low + 1), isGuess: true } : of(low + Math.floor((high - low) / 2));
  }

  #rest(): Pace {
    this.#task = WATCH;
    return 'later';
  }

  #go(task: Task): Pace {
    this.#task = task;
    return 'soon';
  }
}
