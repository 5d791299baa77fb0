/** Something that one waits for, and that may be told any number of times before it is heard. */
export class Notice {
  #told = false;
  #wake: (() => void) | undefined;

  tell(): void {
    this.#told = true;
    this.#wake?.();
  }

  /** Whether it was told since the last time. */
  heard(): boolean {
    const told = this.#told;
    this.#told = false;
    return told;
  }

  /** Resolves when it is told, at once if it was. One waits at a time. */
  async told(): Promise<undefined> {
    if (this.#told) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }
}
