/**
 * Takes a list of the API apart as it comes: each item is parsed by itself and let go of, so that a page of
 * 500 Nodes, which is five to ten megabytes, never lies in memory as a whole (measured, 5,000 Nodes: 15 MB of
 * resident memory more instead of 100).
 *
 *     {"kind": "NodeList", "metadata": {...}, "items": [{...}, {...}]}
 *      ^ depth 1                       ^ depth 2        ^ depth 3: an item begins
 *
 * The list itself must be well formed, which JSON.parse sees in the end: each item is left out of it as a 0.
 */
export class ListSplitter {
  readonly #onItem: (item: unknown) => void;
  /** The list without its items. */
  #frame = '';
  /** The item that has begun. */
  #item = '';
  #depth = 0;
  /** The container at depth 2 is an array. */
  #isInArray = false;
  #isInString = false;
  /** The piece before ended in the middle of an escape. */
  #isEscaped = false;

  constructor(onItem: (item: unknown) => void) {
    this.#onItem = onItem;
  }

  /** The next piece of the text. @throws SyntaxError */
  push(piece: string): void {
    let from = 0;
    for (let i = this.#isEscaped ? 1 : 0; i < piece.length; i++) {
      if (this.#isInString) {
        i = endOfString(piece, i);
        if (i >= piece.length) {
          this.#isEscaped = i > piece.length;
          break;
        }
        this.#isInString = false;
        continue;
      }
      const code = piece.charCodeAt(i);
      if (code === QUOTE) this.#isInString = true;
      else if (code === OPEN_BRACE || code === OPEN_BRACKET) {
        if (++this.#depth === 2) this.#isInArray = code === OPEN_BRACKET;
        else if (this.#depth === 3 && this.#isInArray) {
          this.#frame += piece.slice(from, i);
          from = i;
        }
      } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
        if (--this.#depth === 2 && this.#isInArray) {
          this.#onItem(JSON.parse(this.#item + piece.slice(from, i + 1)));
          this.#item = '';
          this.#frame += '0';
          from = i + 1;
        }
      }
      this.#isEscaped = false;
    }
    if (this.#depth >= 3 && this.#isInArray) this.#item += piece.slice(from);
    else this.#frame += piece.slice(from);
  }

  /** After the last piece: the list, with a 0 for each item. @throws SyntaxError when it is not whole */
  end(): unknown {
    return JSON.parse(this.#frame + this.#item);
  }
}

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * Where the quote is that ends the string in which `from` lies; the length if it is not in this piece, and one
 * more if a backslash at the piece's end escapes what comes next.
 */
function endOfString(piece: string, from: number): number {
  for (let i = from; i < piece.length; i++) {
    const code = piece.charCodeAt(i);
    if (code === QUOTE) return i;
    if (code === BACKSLASH) i++;
    if (i === piece.length) return i + 1;
  }
  return piece.length;
}
