/*
 * Finds one string member of a JSON object: what the shim must know of the network configuration (where
 * the daemon listens, which version to answer in). Everything else in it is the daemon's to parse and to
 * refuse, so this reads no more than it needs: strings and nesting, at the top level only.
 */
#ifndef VTEPD_JSON_MEMBER_H
#define VTEPD_JSON_MEMBER_H

#include <stddef.h>

enum json_member {
	JSON_MEMBER_FOUND,
	JSON_MEMBER_ABSENT,
	/* There, but a number, an object, ... */
	JSON_MEMBER_NOT_A_STRING,
	/* Too long for the space given, or with a character that a path or a version cannot have. */
	JSON_MEMBER_UNUSABLE,
	/* Not a JSON object. */
	JSON_MEMBER_MALFORMED,
};

/*
 * The value of the top-level member `key` (plain ASCII), unescaped, with its terminating zero, in `value`,
 * which is empty unless JSON_MEMBER_FOUND is returned.
 * Of a key that occurs twice the last counts, as for JSON.parse. Escapes beyond printable ASCII make a
 * value unusable; raw UTF-8 is passed through.
 */
enum json_member json_string_member(const char *text, size_t length, const char *key, char *value,
				    size_t space);

#endif
