# dtls-send: build, demonstrate, test, install. `make help` lists the targets.
#
# Yours to set: CC CFLAGS CPPFLAGS LDFLAGS LDLIBS PREFIX DESTDIR V PKG_CONFIG MBEDTLS_CFLAGS MBEDTLS_LIBS BUILD
# A cross build: make CC=arm-linux-gnueabihf-gcc PKG_CONFIG=arm-linux-gnueabihf-pkg-config

VERSION := 0.1.0

BUILD      ?= build
PREFIX     ?= /usr/local
CFLAGS     ?= -O2 -g
PKG_CONFIG ?= pkg-config
PYTHON     ?= /usr/bin/python3
INSTALL    ?= install
V          ?= 0

# mbed TLS 2.28 as Debian ships it has no .pc files; the names are the same everywhere.
MBEDTLS        := mbedtls mbedx509 mbedcrypto
MBEDTLS_CFLAGS ?= $(shell $(PKG_CONFIG) --cflags $(MBEDTLS) 2>/dev/null)
MBEDTLS_LIBS   ?= $(or $(shell $(PKG_CONFIG) --libs $(MBEDTLS) 2>/dev/null),$(MBEDTLS:%=-l%))

# What the program needs, whatever the user's flags are. A flag that this compiler or processor lacks is left out.
supported = $(foreach flag,$(1),$(shell printf 'int x;' | $(CC) -Werror $(flag) -c -x c - -o /dev/null 2>/dev/null && echo $(flag)))
WARNINGS  := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wformat=2 -Wvla
HARDENING := $(call supported,-fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
               -mbranch-protection=standard -ftrivial-auto-var-init=zero -fno-delete-null-pointer-checks \
               -fno-strict-overflow -fno-strict-aliasing)
# glibc warns where it is asked to fortify code that is not optimised.
FORTIFY   := $(if $(filter-out -O0,$(lastword $(filter -O%,$(CFLAGS)))),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
# Kept reproducible: SOURCE_DATE_EPOCH, else the last commit's date, else now.
BUILD_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),$(shell date +%s))

ALL_CPPFLAGS = -Iinclude -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -DBUILD_EPOCH=$(BUILD_EPOCH) $(FORTIFY) \
               $(MBEDTLS_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS   = $(WARNINGS) $(HARDENING) -fPIE -pthread -MMD -MP $(CFLAGS)
ALL_LDFLAGS  = -pie -pthread -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed $(LDFLAGS)
ALL_LDLIBS   = $(MBEDTLS_LIBS) $(LDLIBS)

Q = $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@echo '  $(1)')

SOURCES := $(wildcard src/*.c)
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
MODULES := $(filter-out $(BUILD)/src/main.o,$(OBJECTS))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
TEST_TOOLS := $(BUILD)/inboxd $(BUILD)/tests/ten_lines $(BUILD)/tests/names.so
C_FILES := $(wildcard src/*.c include/*.h tests/*/*.c tests/*/*.h)
SCRIPTS := $(wildcard certs/*.sh tests/*/*.sh) .ci/run

.PHONY: all demo test lint sanitize coverage install uninstall clean help deps
.DELETE_ON_ERROR:

all: $(BUILD)/dtls-send ## build the program: build/dtls-send

$(BUILD)/dtls-send: $(OBJECTS)
	$(call say,LINK    $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS)

$(BUILD)/%.o: %.c Makefile
	$(call say,CC      $<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/inboxd: $(BUILD)/tests/server/inboxd.o $(BUILD)/src/random.o $(BUILD)/src/wait.o $(BUILD)/src/file.o
	$(call say,LINK    $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS)

$(BUILD)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(MODULES)
	$(call say,LINK    $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS) -lcmocka

$(BUILD)/tests/ten_lines: $(BUILD)/tests/e2e/ten_lines.o $(MODULES)
	$(call say,LINK    $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS)

# Preloaded by tests: answers for getaddrinfo(3).
$(BUILD)/tests/names.so: tests/e2e/names.c
	$(call say,CC      $<)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -Wall -Wextra -O1 -fPIC -shared -o $@ $<

demo: all $(BUILD)/inboxd ## the whole story, offline: a demo PKI, a server, an uplink and its downlink
	$(Q)BUILD=$(BUILD) tests/server/demo.sh

unit-test: $(UNIT_TESTS)
	$(Q)for test in $^; do $$test || exit 1; done

test: all unit-test $(TEST_TOOLS) ## unit tests, then end-to-end tests against inboxd, OpenSSL and GnuTLS
	$(Q)BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -q -n auto -p no:cacheprovider tests/e2e $(PYTEST_FLAGS)

clean: ## remove all that was generated
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
