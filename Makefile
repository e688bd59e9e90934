# retry: build with PGXS, for any PG_CONFIG
#
#	make && make install		needs server headers, libpq and libcurl
#	make installcheck			needs a running server that preloads retry
#	make unit					leaves and HTTP client, outside the server
#	scripts/test				everything, on a private server

EXTENSION = retry
DATA = $(sort $(wildcard retry--*.sql))
MODULE_big = retry
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
PGFILEDESC = "retry - durable HTTP calls with retries"

REGRESS = catalog rate backoff enqueue admin bulk amend once rights owners bad_input callbacks rules routing call schedule sql_targets config lane_by lanes disabled secret tls remembered where_to limits audit alarms messages sagas twophase page find
REGRESS_OPTS = --load-extension=retry

PG_CONFIG ?= pg_config
CURL_CONFIG ?= curl-config

# OpenSSL's libcrypto, where its headers are: client certificates are judged when
# they are stored, and ed25519 signatures made.
RETRY_CRYPTO := $(shell echo '\#include <openssl/evp.h>' | $(CC) -E -x c - >/dev/null 2>&1 && echo -lcrypto)

# The server's headers as system headers: what they warn about is not ours.
# libpq's are beside them.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server) -isystem $(libpq_srcdir) -Isrc $(shell $(CURL_CONFIG) --cflags) \
	$(if $(RETRY_CRYPTO),-DRETRY_OPENSSL)
PG_CFLAGS = -std=gnu99 -Wall -Wextra -Wshadow=compatible-local -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fvisibility=hidden
SHLIB_LINK = $(shell $(CURL_CONFIG) --libs) $(RETRY_CRYPTO) $(libpq)

EXTRA_CLEAN = build

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(wildcard src/*.h)

include test/unit/unit.mk
