# dtls-send: build, demonstrate, test, install. `make help` lists the targets.
#
# Yours to set: CC CFLAGS CPPFLAGS LDFLAGS LDLIBS PREFIX DESTDIR V PKG_CONFIG MBEDTLS_CFLAGS MBEDTLS_LIBS BUILD
# EMBED=DIR builds DIR/cert.crt and DIR/key.pem into the program; say it to `make install` as well.
# A cross build: make CC=arm-linux-gnueabihf-gcc PKG_CONFIG=arm-linux-gnueabihf-pkg-config
# STATIC=1 builds a program that needs nothing of the machine it is copied to; say it to `make install` as well.

VERSION := 0.1.0

BUILD      ?= build
PREFIX     ?= /usr/local
CFLAGS     ?= -O2 -g
PKG_CONFIG ?= pkg-config
PYTHON     ?= /usr/bin/python3
INSTALL    ?= install
V          ?= 0
# Tests mostly wait for each other's peers, so more of them than processors run at once.
JOBS       ?= 6

# mbed TLS 2.28 as Debian ships it has no .pc files; the names are the same everywhere.
MBEDTLS        := mbedtls mbedx509 mbedcrypto
ifndef MBEDTLS_CFLAGS
MBEDTLS_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(MBEDTLS) 2>/dev/null)
endif
ifndef MBEDTLS_LIBS
MBEDTLS_LIBS   := $(or $(shell $(PKG_CONFIG) --libs $(MBEDTLS) 2>/dev/null),$(MBEDTLS:%=-l%))
# The loader searches them in this order, and most of what it looks for is in libmbedcrypto: 3 % of a repeat run.
ifneq ($(STATIC),1)
MBEDTLS_LIBS   := $(filter-out -lmbed%,$(MBEDTLS_LIBS)) -lmbedcrypto -lmbedx509 -lmbedtls
endif
endif

# What the program needs, whatever the user's flags are. A flag that this compiler or processor lacks is left out.
supported = $(foreach flag,$(1),$(shell printf 'int x;' | $(CC) -Werror $(flag) -c -x c - -o /dev/null 2>/dev/null && echo $(flag)))
WARNINGS  := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wformat=2 -Wvla
HARDENING := $(call supported,-fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
               -mbranch-protection=standard -ftrivial-auto-var-init=zero -fno-delete-null-pointer-checks \
               -fno-strict-overflow -fno-strict-aliasing)
# glibc warns where it is asked to fortify code that is not optimised.
# The sanitizers bring checks of their own.
FORTIFY   := $(if $(findstring -fsanitize,$(CFLAGS)),,$(if $(filter-out -O0,$(lastword $(filter -O%,$(CFLAGS)))),\
               -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3))
# Kept reproducible: SOURCE_DATE_EPOCH, else the last commit's date, else this file's.
BUILD_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null),$(shell stat -c %Y Makefile))

# _FILE_OFFSET_BITS: without it a 32-bit system fails on directories and files with large inode numbers or sizes.
ALL_CPPFLAGS = -Iinclude -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DVERSION='"$(VERSION)"' -DBUILD_EPOCH=$(BUILD_EPOCH) \
               $(FORTIFY) $(EMBED_FLAG) $(MBEDTLS_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS   = $(WARNINGS) $(HARDENING) -fPIE -pthread -MMD -MP $(CFLAGS)
ALL_LDFLAGS  = $(KIND) -pthread -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed $(LDFLAGS)
ALL_LDLIBS   = $(MBEDTLS_LIBS) $(LDLIBS)

# Static, and position-independent where the C library has the means; Debian's for 32-bit ARM has not.
KIND = -pie
ifeq ($(STATIC),1)
$(BUILD)/src/system/resolve.o: ALL_CPPFLAGS += -DSTATIC_BUILD
$(BUILD)/dtls-send: KIND := $(shell printf 'int main(void) { return 0; }' | $(CC) -static-pie -x c - -o /dev/null 2>/dev/null \
                              && echo -static-pie || echo -static)
# The linker warns that getaddrinfo() will need the modules of this glibc; src/system/resolve.c does without them.
$(BUILD)/dtls-send: QUIETLY = 2>$@.log; status=$$?; \
    sed '/resolve\.o: in function/d; /getaddrinfo. in statically linked/d' $@.log >&2; rm -f $@.log; exit $$status
endif

Q = $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@echo '  $(1)')

SOURCES := $(wildcard src/*.c src/*/*.c)
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
MODULES := $(filter-out $(BUILD)/src/main.o,$(OBJECTS))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
TEST_TOOLS := $(BUILD)/inboxd $(BUILD)/tests/ten_lines $(BUILD)/tests/names.so
C_FILES := $(SOURCES) $(wildcard include/*.h include/*/*.h tests/*/*.c tests/*/*.h)
SCRIPTS := $(wildcard certs/*.sh tests/*/*.sh .ci/*)

SANITIZERS    := -fsanitize=address,undefined -fno-sanitize-recover=all
VALGRIND      := valgrind --quiet --error-exitcode=99 --leak-check=full
LINT_CPPFLAGS := -Iinclude -D_GNU_SOURCE -DVERSION='""' -DBUILD_EPOCH=0
AS_ROOT       := $(if $(filter-out 0,$(shell id -u)),sudo)
PACKAGES      := gcc libc6-dev make libmbedtls-dev openssl libcmocka-dev python3-pytest python3-pytest-xdist gnutls-bin \
                 clang libclang-rt-dev llvm clang-format clang-tidy cppcheck shellcheck mandoc valgrind strace systemd \
                 socat libcoap3-bin libcoap3-dev
CROSS_PACKAGES := gcc-arm-linux-gnueabihf libc6-dev-armhf-cross gcc-arm-linux-gnueabi libc6-dev-armel-cross \
                  gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static

.PHONY: FORCE inboxd unit-tests unit-test all demo test fault bench ceilings lint sanitize cross-test coverage install uninstall clean help deps cross-deps
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/dtls-send ## build the program: build/dtls-send

$(BUILD)/dtls-send: $(OBJECTS)
	$(call say,LINK    $@)
	$(Q)$(PRIVATELY) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS) $(QUIETLY)
	$(Q)chmod $(MODE) $@

# A program that holds a key can be run by all, and read by its owner alone.
MODE     := $(if $(EMBED),711,755)
# Not by $(abspath), which takes a path with a space in it for two; in a list of files make wants a backslash before it.
EMBED_DIR := $(if $(EMBED),$(if $(filter /%,$(firstword $(EMBED))),,$(CURDIR)/)$(EMBED))
EMBEDDED  := $(if $(EMBED),$(addprefix $(subst $(subst ,, ),\ ,$(EMBED_DIR)),/cert.crt /key.pem))
$(BUILD)/src/credentials/embedded.o: $(EMBEDDED) $(BUILD)/embedded
$(BUILD)/src/credentials/embedded.o: EMBED_FLAG := $(if $(EMBED),-DEMBED_DIR='"$(EMBED_DIR)"')
# A file that is there keeps its mode when it is written anew, so it goes first.
PRIVATELY = $(if $(EMBED),umask 077; rm -f $@;)

# Changes when EMBED does.
$(BUILD)/embedded: FORCE
	@mkdir -p $(@D)
	@echo '$(EMBEDDED)' | cmp -s - $@ || echo '$(EMBEDDED)' > $@

# Changes when STATIC does.
$(BUILD)/src/system/resolve.o: $(BUILD)/static
$(BUILD)/static: FORCE
	@mkdir -p $(@D)
	@echo '$(STATIC)' | cmp -s - $@ || echo '$(STATIC)' > $@
FORCE:

$(BUILD)/%.o: %.c Makefile
	$(call say,CC      $<)
	@mkdir -p $(@D)
	$(Q)$(PRIVATELY) $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/inboxd: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/server/*.c) src/run/coap.c src/system/random.c src/system/wait.c src/store/file.c)
	$(call say,LINK    $@)
	$(Q)$(PRIVATELY) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS)

$(BUILD)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(MODULES)
	$(call say,LINK    $@)
	$(Q)$(PRIVATELY) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS) -lcmocka

# An archive gives only what is still missing: not what the fuzz targets have of their own.
$(BUILD)/modules.a: $(MODULES)
	$(Q)$(PRIVATELY) $(AR) rcs $@ $^

$(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/modules.a
	$(call say,LINK    $@)
	$(Q)$(PRIVATELY) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(filter %.a,$^) $(ALL_LDLIBS)

$(addprefix $(BUILD)/tests/fuzz_,handshake records session): \
    $(patsubst %,$(BUILD)/tests/fuzz/%.o,network server exchange)

$(BUILD)/tests/ten_lines: $(BUILD)/tests/e2e/ten_lines.o $(MODULES)
	$(call say,LINK    $@)
	$(Q)$(PRIVATELY) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS)

# Preloaded by tests: answers for getaddrinfo(3).
$(BUILD)/tests/names.so: tests/e2e/names.c
	$(call say,CC      $<)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -Wall -Wextra -O1 -fPIC -shared -o $@ $<

# Preloaded by tests: makes one chosen call go wrong.
$(BUILD)/tests/faults.so: tests/fault/faults.c
	$(call say,CC      $<)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARNINGS) -O1 -fPIC -shared -o $@ $<

demo: all $(BUILD)/inboxd ## the whole story, offline: a demo PKI, a server, an uplink and its downlink
	$(Q)BUILD=$(BUILD) tests/server/demo.sh

inboxd: $(BUILD)/inboxd

unit-tests: $(UNIT_TESTS)

unit-test: $(UNIT_TESTS)
	@# What they print is of use where one fails.
	$(Q)passed=0; for test in $^; do \
	    output=$$($$test 2>&1) || { printf '%s\n' "$$output"; exit 1; }; \
	    passed=$$((passed + $$(printf '%s\n' "$$output" | grep -c '^\[       OK'))); \
	done; echo "$$passed unit tests passed"

test: all unit-test $(TEST_TOOLS) ## unit tests, then end-to-end tests against inboxd, OpenSSL and GnuTLS
	$(Q)BUILD=$(abspath $(BUILD)) TEST_WRAPPER='$(TEST_WRAPPER)' PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -n $(JOBS) -p no:cacheprovider tests/e2e tests/net $(PYTEST_FLAGS)

fault: all $(TEST_TOOLS) $(BUILD)/tests/faults.so ## every call fails once, runs are killed, disks hang, queues are long: nothing is lost
	$(Q)BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -n $(JOBS) -p no:cacheprovider tests/fault $(PYTEST_FLAGS)

lint: ## clang-format, clang-tidy, cppcheck, shellcheck, mandoc; gcc and clang without a warning
	clang-format --dry-run --Werror $(C_FILES)
	.ci/torn $(SOURCES) $(wildcard include/*.h include/*/*.h)
	cppcheck --quiet --error-exitcode=1 --enable=warning,style,performance,portability --inline-suppr \
	    --suppress=missingIncludeSystem $(LINT_CPPFLAGS) -DMBEDTLS_VERSION_NUMBER=0x021C0000 -DMBEDTLS_VERSION_MAJOR=2 \
	    src tests/server tests/e2e tests/fault tests/interop
	@# One file a call: clang-tidy 14 takes va_start for missing in all files but the first.
	printf '%s\n' $(filter %.c,$(C_FILES)) | \
	    xargs -P 4 -I{} clang-tidy --quiet {} -- -std=c11 $(LINT_CPPFLAGS) $(MBEDTLS_CFLAGS) 2>/dev/null
	shellcheck $(SCRIPTS)
	mandoc -T lint -W warning src/man/dtls-send.1
	$(MAKE) BUILD=$(BUILD)/gcc CC=gcc CFLAGS='-O2 -Werror' all inboxd unit-tests
	$(MAKE) BUILD=$(BUILD)/clang CC=clang CFLAGS='-O2 -Werror' all inboxd unit-tests

sanitize: ## the tests again with ASan and UBSan, and the quickest of them under valgrind
	$(MAKE) BUILD=$(BUILD)/sanitize CFLAGS='-O1 -g -fno-omit-frame-pointer $(SANITIZERS)' LDFLAGS='$(SANITIZERS)' test
	$(MAKE) BUILD=$(BUILD)/sanitize CFLAGS='-O1 -g -fno-omit-frame-pointer $(SANITIZERS)' LDFLAGS='$(SANITIZERS)' fault \
	    PYTEST_FLAGS="-k 'once and (Queued- or Repeat or Flush) and not calloc'"
	$(MAKE) TEST_WRAPPER='$(VALGRIND)' PYTEST_FLAGS='-m smoke' test

bench: all inboxd ## compare its costs with those of other programs (BENCH_FLAGS=--quick: in two minutes)
	$(Q)BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/bench.py $(BENCH_FLAGS)

ceilings: all inboxd ## what is counted exactly, bytes and instructions, against the ceilings that were recorded
	$(Q)BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) tests/bench/ceilings.py

cross-test: $(BUILD)/inboxd ## built for the Raspberry Pi's processors and run under qemu: armhf, arm64, static armel
	$(Q)BUILD=$(BUILD) PYTHON=$(PYTHON) tests/cross/run.sh

# The static library, since it has what libcoap keeps from programs: the encoder of a message's header.
$(BUILD)/tests/coap_compare: $(BUILD)/tests/interop/coap_compare.o
	$(call say,LINK    $@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -l:libcoap-3-notls.a

.PHONY: interop
interop: $(BUILD)/tests/coap_compare ## compare the CoAP codec with libcoap's, both ways, over random and damaged messages
	$(Q)$(BUILD)/tests/coap_compare

# libFuzzer is a part of clang.
.PHONY: fuzz fuzzers
fuzz: ## look for inputs that break it, each target for FUZZ_SECONDS (60), with ASan and UBSan
	$(Q)$(MAKE) BUILD=$(BUILD)/fuzz CC=clang LDFLAGS='$(SANITIZERS)' \
	    CFLAGS='-O1 -g -fno-omit-frame-pointer $(SANITIZERS) -fsanitize=fuzzer-no-link' fuzzers
	$(Q)BUILD=$(BUILD)/fuzz tests/fuzz/run.sh

fuzzers: $(FUZZERS)

coverage: ## the tests again, and the share of the lines of src/ that they reach
	@# Left out: a test that limits the size of files, and with it those in which the counts are kept.
	$(MAKE) BUILD=$(BUILD)/coverage CFLAGS='-O0 -g --coverage' LDFLAGS=--coverage \
	    PYTEST_FLAGS='--deselect tests/e2e/test_output.py::test_a_disk_that_fills_up_is_a_failure' test
	@gcov -n $(SOURCES:%.c=$(BUILD)/coverage/%.o) 2>/dev/null | awk -F"[':% ]+" '\
	    /^File .src/ { name = $$2 } \
	    /^Lines/ && name != "" { printf "%6.1f %% of %4d lines  %s\n", $$3, $$5, name; hit += $$3 * $$5; all += $$5; name = "" } \
	    END { printf "%6.1f %% of %4d lines  in all\n", hit / all, all }'

COMPLETIONS := $(PREFIX)/share/bash-completion/completions
UNITS       := $(PREFIX)/lib/systemd/system

# What `sudo make install` built belongs to the owner of the checkout, whose next `make` could not replace it
# otherwise. Not what holds a key.
GIVE_BACK = $(if $(EMBED),true,[ "$$(id -u)" != 0 ] || [ "$$(stat -c %u .)" = 0 ] || chown -R -h --reference=. $(BUILD))

install: all ## put program, man page, completion and systemd units under $(DESTDIR)$(PREFIX)
	$(INSTALL) -D -m $(MODE) $(BUILD)/dtls-send $(DESTDIR)$(PREFIX)/bin/dtls-send
	$(INSTALL) -D -m 644 src/man/dtls-send.1 $(DESTDIR)$(PREFIX)/share/man/man1/dtls-send.1
	$(INSTALL) -D -m 644 src/completion/dtls-send.bash $(DESTDIR)$(COMPLETIONS)/dtls-send
	$(INSTALL) -D -m 644 src/systemd/dtls-send@.timer $(DESTDIR)$(UNITS)/dtls-send@.timer
	$(INSTALL) -D -m 644 src/systemd/dtls-send@.service $(DESTDIR)$(UNITS)/dtls-send@.service
	sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(DESTDIR)$(UNITS)/dtls-send@.service
	@$(GIVE_BACK)

uninstall: ## remove just those
	rm -f $(DESTDIR)$(PREFIX)/bin/dtls-send $(DESTDIR)$(PREFIX)/share/man/man1/dtls-send.1 \
	    $(DESTDIR)$(COMPLETIONS)/dtls-send $(addprefix $(DESTDIR)$(UNITS)/dtls-send@,.timer .service)

deps: ## install what all, demo, test, lint, sanitize and coverage need (Debian)
	$(AS_ROOT) apt-get install -y --no-install-recommends $(PACKAGES)

cross-deps: ## install what cross-test needs besides (Debian)
	$(AS_ROOT) apt-get install -y --no-install-recommends $(CROSS_PACKAGES)

clean: ## remove all that was generated
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
