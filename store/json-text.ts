/** What JSON from a store needs beyond JSON.parse: a bound on its depth, Go's way with field names, our words for what is wrong. */

/** Whether objects and arrays are nested deeper than `limit`; the text need not be valid JSON. */
export function jsonDepthExceeds(text: string, limit: number): boolean {
  // Of 50,000 leases, each begins two objects: what has no more beginnings than allowed is not looked at closer.
  if (countUpTo(text, '{', limit) + countUpTo(text, '[', limit) <= limit) return false;
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

/** The one message of a zod schema for whatever is absent or of another type. */
export const said = (problem: string) => ({ required_error: problem, invalid_type_error: problem });

const [QUOTE, BACKSLASH] = [0x22, 0x5c];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * The fields of these names, each also found under another spelling (`publicip` for `PublicIP`), as Go's
 * decoder finds them; the exact spelling is preferred. What is not an object is given back as it is.
 */
export function withFieldNames<T>(data: T, names: readonly string[]): T & Record<string, unknown> {
  type Fields = T & Record<string, unknown>;
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return data as Fields;
  const fields = data as Record<string, unknown>;
  const found: Record<string, unknown> = {};
  const missing: string[] = [];
  for (const name of names) {
    if (Object.hasOwn(fields, name)) found[name] = fields[name];
    else missing.push(name);
  }
  // Only a name that was not asked for can be another spelling of one that was.
  const others = missing.length === 0 ? [] : Object.keys(fields).filter((key) => !Object.hasOwn(found, key));
  if (others.length === 0) return found as Fields;
  const byLowerCase = new Map(others.map((key) => [key.toLowerCase(), fields[key]]));
  for (const name of missing) {
    const value = byLowerCase.get(name.toLowerCase());
    if (value !== undefined) found[name] = value;
  }
  return found as Fields;
}

/** How often a character occurs, counted no further than one past the limit. */
function countUpTo(text: string, character: string, limit: number): number {
  let count = 0;
  for (let at = text.indexOf(character); at >= 0 && count <= limit; at = text.indexOf(character, at + 1))
    count++;
  return count;
}
