import { inspect } from 'node:util';
import { REDACTED } from '../ops/redact.ts';

/** A password, in a box that shows `***` to whatever prints it. Only the code that logs in opens it. */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}
