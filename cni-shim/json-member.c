/* See json-member.h. Never reads outside text[0..length), whatever is in there. */
#include "json-member.h"

#include <stdbool.h>
#include <string.h>

/* Deeper than any configuration; a bound, so that nesting can be counted in a bit set. */
#define MAX_DEPTH 256

struct cursor {
	const char *at;
	const char *end;
};

static void skip_space(struct cursor *c)
{
	while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

static bool take(struct cursor *c, char wanted)
{
	skip_space(c);
	if (c->at == c->end || *c->at != wanted)
		return false;
	c->at++;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* What follows a backslash: the character, -1 if it is not JSON, -2 if it is not printable ASCII. */
static int take_escape(struct cursor *c)
{
	int code = 0;

	if (c->at == c->end)
		return -1;
	switch (*c->at++) {
	case '"':
		return '"';
	case '\\':
		return '\\';
	case '/':
		return '/';
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		return -2;
	case 'u':
		for (int i = 0; i < 4; i++) {
			int digit = c->at < c->end ? hex_digit(*c->at) : -1;

			if (digit < 0)
				return -1;
			code = code * 16 + digit;
			c->at++;
		}
		return code >= 0x20 && code < 0x7f ? code : -2;
	default:
		return -1;
	}
}

/*
 * A string, from its opening quote on. `value` may be NULL. *usable says whether the whole of it fitted.
 * Returns false where it is not JSON.
 */
static bool take_string(struct cursor *c, char *value, size_t space, bool *usable)
{
	size_t length = 0;

	*usable = true;
	if (!take(c, '"'))
		return false;
	while (c->at < c->end) {
		int code = (unsigned char)*c->at++;

		if (code == '"') {
			if (value != NULL)
				value[*usable ? length : 0] = '\0';
			return true;
		}
		if (code < 0x20)
			return false;
		if (code == '\\') {
			code = take_escape(c);
			if (code == -1)
				return false;
		}
		if (value == NULL || code < 0 || length + 1 >= space) {
			*usable = false;
			continue;
		}
		value[length++] = (char)code;
	}
	return false;
}

/* Any value: strings are read, brackets must match, the rest is not looked at. */
static bool skip_value(struct cursor *c)
{
	char open[MAX_DEPTH];
	size_t depth = 0;
	bool usable;

	do {
		const char *before;

		skip_space(c);
		if (c->at == c->end)
			return false;
		before = c->at;
		switch (*c->at) {
		case '"':
			if (!take_string(c, NULL, 0, &usable))
				return false;
			break;
		case '{':
		case '[':
			if (depth == MAX_DEPTH)
				return false;
			open[depth++] = *c->at++;
			break;
		case '}':
		case ']':
			if (depth == 0 || open[--depth] != (*c->at == '}' ? '{' : '['))
				return false;
			c->at++;
			break;
		case ',':
		case ':':
			if (depth == 0)
				return false;
			c->at++;
			break;
		default:
			while (c->at < c->end && strchr(" \t\r\n\"{}[],:", *c->at) == NULL)
				c->at++;
			/* A zero byte, which strchr finds in every text. */
			if (c->at == before)
				return false;
		}
	} while (depth > 0);
	return true;
}

static enum json_member find_member(struct cursor c, const char *key, char *value, size_t space)
{
	enum json_member found = JSON_MEMBER_ABSENT;
	char name[32];
	bool usable;

	if (!take(&c, '{'))
		return JSON_MEMBER_MALFORMED;
	if (take(&c, '}'))
		return JSON_MEMBER_ABSENT;
	do {
		if (!take_string(&c, name, sizeof(name), &usable) || !take(&c, ':'))
			return JSON_MEMBER_MALFORMED;
		if (!usable || strcmp(name, key) != 0) {
			if (!skip_value(&c))
				return JSON_MEMBER_MALFORMED;
			continue;
		}
		skip_space(&c);
		if (c.at < c.end && *c.at == '"') {
			if (!take_string(&c, value, space, &usable))
				return JSON_MEMBER_MALFORMED;
			found = usable ? JSON_MEMBER_FOUND : JSON_MEMBER_UNUSABLE;
		} else {
			if (!skip_value(&c))
				return JSON_MEMBER_MALFORMED;
			found = JSON_MEMBER_NOT_A_STRING;
		}
	} while (take(&c, ','));
	return take(&c, '}') ? found : JSON_MEMBER_MALFORMED;
}

enum json_member json_string_member(const char *text, size_t length, const char *key, char *value,
				    size_t space)
{
	struct cursor c = { text, text + length };
	enum json_member found = find_member(c, key, value, space);

	if (found != JSON_MEMBER_FOUND)
		value[0] = '\0';
	return found;
}
