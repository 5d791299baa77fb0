/* stdin: texts, each after its length (4 bytes, network order). stdout: a line a text, what was found. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "json-member.h"

int main(void)
{
	static const char *const names[] = { "found", "absent", "not-a-string", "unusable", "malformed" };
	uint32_t length;
	char value[64];

	while (fread(&length, sizeof(length), 1, stdin) == 1) {
		/* Of the very size, so that a read past the end is one past the allocation. */
		char *text = malloc(ntohl(length) + 0u);

		if (fread(text, 1, ntohl(length), stdin) != ntohl(length))
			return 1;
		printf("%s %s\n", names[json_string_member(text, ntohl(length), "socket", value, sizeof(value))], value);
		free(text);
	}
	return 0;
}
