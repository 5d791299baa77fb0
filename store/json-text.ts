/** What JSON from a store needs beyond JSON.parse: a bound on its depth, and Go's way with field names. */

/** Whether objects and arrays are nested deeper than `limit`; the text need not be valid JSON. */
export function jsonDepthExceeds(text: string, limit: number): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (inString) {
      if (code === BACKSLASH) i++;
      else if (code === QUOTE) inString = false;
    } else if (code === QUOTE) inString = true;
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      if (++depth > limit) return true;
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) depth--;
  }
  return false;
}

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * The fields of these names, each also found under another spelling (`publicip` for `PublicIP`), as Go's
 * decoder finds them; the exact spelling is preferred. What is not an object is given back as it is.
 */
export function withFieldNames<T>(data: T, names: readonly string[]): T & Record<string, unknown> {
  type Fields = T & Record<string, unknown>;
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return data as Fields;
  const found: Record<string, unknown> = {};
  let byLowerCase: Map<string, unknown> | undefined;
  for (const name of names) {
    if (Object.hasOwn(data, name)) {
      found[name] = (data as Record<string, unknown>)[name];
      continue;
    }
    byLowerCase ??= new Map(Object.entries(data).map(([key, value]) => [key.toLowerCase(), value]));
    const value = byLowerCase.get(name.toLowerCase());
    if (value !== undefined) found[name] = value;
  }
  return found as Fields;
}
