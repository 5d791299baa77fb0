/**
 * Secrets, and text that is fit to print. What leaves the daemon as words (a log line, an error, a page of
 * status) passes through here.
 */

export type Redactor = (text: string) => string;

/** What stands where a secret stood. */
export const REDACTED = '***';

/**
 * Shorter secrets are not searched for: replacing every "a" would hide all else, and a text that holds so
 * short a secret tells no more than it did. They are still never written by us in the first place.
 */
const MIN_SEARCHED_LENGTH = 4;

/** The user part of a URL: up to the last @ before the path. */
const URL_USER = /([a-z][a-z0-9+.-]*:\/\/)[^\s/?#]*@/gi;

/** `http://user:password@host` -> `http://host`: an endpoint as it may be shown. */
export const withoutUser = (text: string): string => text.replace(URL_USER, '$1');

/** Replaces the given secrets, as they are and as a URL encodes them, and the user part of any URL. */
export function redactor(secrets: readonly string[]): Redactor {
  const searched = new Set<string>();
  for (const secret of secrets) {
    if (secret.length < MIN_SEARCHED_LENGTH) continue;
    for (const form of [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)]) {
      searched.add(form);
    }
  }
  // The longest first: one secret may begin with another.
  const ordered = [...searched].sort((a, b) => b.length - a.length);
  return (text) => {
    let clean = text;
    for (const secret of ordered) clean = clean.replaceAll(secret, REDACTED);
    return clean.includes('@') ? withoutUser(clean) : clean;
  };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** The text on one line: line ends and tabs as escapes, control and direction-changing characters as U+FFFD. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => {
    if (character === '\n') return '\\n';
    if (character === '\t') return '\\t';
    return character === '\r' ? '\\r' : '\ufffd';
  });
}
