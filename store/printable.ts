/** Hostile text (keys, values, names that others wrote) as it may go into a message, a log or a table. */

/** One line, at most `maxLength` characters, every control character replaced by U+FFFD. */
export function printable(text: string, maxLength = 64): string {
  const head = text.length > maxLength ? `${text.slice(0, maxLength - 3)}...` : text;
  // Cc, line and paragraph separators, and what turns the direction of the text around it.
  return head.replace(/[\p{Cc}\p{Zl}\p{Zp}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');
}
