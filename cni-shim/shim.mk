# The CNI plugin. For the project's Makefile to include, and for the tests to run by itself:
#   make -f cni-shim/shim.mk build/vtepd-cni
# A target is written beside its name and renamed, so that makes running at once do not meet.

SHIM_CC ?= gcc
SHIM_WARNINGS = -std=gnu11 -Wall -Wextra -Werror -Wshadow -Wconversion -Wformat=2 -Wstrict-prototypes
SHIM_SOURCES = cni-shim/vtepd-cni.c cni-shim/json-member.c
SHIM_BUILD = $(SHIM_CC) $(SHIM_WARNINGS)

build/vtepd-cni: $(SHIM_SOURCES) cni-shim/json-member.h
	@mkdir -p build
	$(SHIM_BUILD) -O2 -static -fstack-protector-strong -D_FORTIFY_SOURCE=2 -s -o $@.$$$$ $(SHIM_SOURCES) && mv $@.$$$$ $@

# The same program under AddressSanitizer and UndefinedBehaviorSanitizer.
build/vtepd-cni.sanitized: $(SHIM_SOURCES) cni-shim/json-member.h
	@mkdir -p build
	$(SHIM_BUILD) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -o $@.$$$$ $(SHIM_SOURCES) && mv $@.$$$$ $@

# Reads many texts and says which member it finds in each: test/cni-shim/json-member.test.ts.
build/json-member.sanitized: test/cni-shim/json-member-probe.c cni-shim/json-member.c cni-shim/json-member.h
	@mkdir -p build
	$(SHIM_BUILD) -Icni-shim -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -o $@.$$$$ \
		test/cni-shim/json-member-probe.c cni-shim/json-member.c && mv $@.$$$$ $@
