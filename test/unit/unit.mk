# make unit: the modules that need no server, one program each, TAP on stdout.
# make fuzz: the same leaves under libFuzzer, FUZZ_SECONDS each (needs clang).
#
# A program is linked with the sources named for it here.  lane.c is compiled
# as frontend code, so that its memory comes from libpgcommon.

UNIT_adaptive = adaptive.c
UNIT_backoff = backoff.c backoff_text.c cron.c
UNIT_breaker = breaker.c
UNIT_budget = budget.c
UNIT_cron = cron.c
UNIT_coordinate = coordinate.c decision.c
UNIT_decision = decision.c
UNIT_flow = flow.c breaker.c budget.c throttle.c rate.c
UNIT_hedging = hedging.c histogram.c
UNIT_headers = http.c http_mail.c http_outcome.c http_tls.c mail_talk.c evloop.c netguard.c httpdate.c ratelimit_header.c url.c
UNIT_histogram = histogram.c
UNIT_host_rule = host_rule.c url.c
UNIT_http = http.c http_mail.c http_outcome.c http_tls.c http_transfer.c mail_talk.c evloop.c netguard.c httpdate.c ratelimit_header.c url.c
UNIT_http_mail = $(UNIT_http)
UNIT_httpdate = httpdate.c
UNIT_backlog = backlog.c
UNIT_lane = backlog.c lane.c lane_queue.c lane_ring.c lane_dormant.c adaptive.c histogram.c
UNIT_mail_message = mail_message.c
UNIT_mail_talk = mail_talk.c
UNIT_netguard = netguard.c
UNIT_prepared_name = prepared_name.c
UNIT_rate = rate.c
UNIT_pem = pem.c
UNIT_policy = policy.c status_list.c backoff.c backoff_text.c cron.c httpdate.c
UNIT_ratelimit_header = ratelimit_header.c httpdate.c
UNIT_route = route.c url.c
UNIT_sign = sign.c ed25519.c secret_ref.c
UNIT_secret_use = secret_use.c
UNIT_status_list = status_list.c
UNIT_throttle = throttle.c
UNIT_url = url.c
UNIT_uuid7 = uuid7.c

UNIT_TESTS = $(patsubst test/unit/test_%.c,%,$(sort $(wildcard test/unit/test_*.c)))
UNIT_CFLAGS = -std=gnu99 -D_GNU_SOURCE $(if $(RETRY_CRYPTO),-DRETRY_OPENSSL) -g -O1 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -isystem $(shell $(PG_CONFIG) --includedir-server) -Isrc
UNIT_LIBS = -L$(shell $(PG_CONFIG) --pkglibdir) -L$(shell $(PG_CONFIG) --libdir) \
	-lpgcommon -lpgport $(shell $(CURL_CONFIG) --libs) -lm -lpthread
UNIT_FRONTEND_lane = -DFRONTEND

UNIT_LIBS_pem = $(RETRY_CRYPTO)

# the sums of libpgcommon are OpenSSL's where the server's are
UNIT_LIBS_sign = $(if $(shell grep 'define USE_OPENSSL 1' $(shell $(PG_CONFIG) --includedir-server)/pg_config.h),-lcrypto) $(RETRY_CRYPTO)

UNIT_LIBS_secret_use = $(UNIT_LIBS_sign)

build/unit/%: test/unit/test_%.c test/unit/check.h $(wildcard src/*.c src/*.h)
	@mkdir -p build/unit
	$(CC) $(UNIT_CFLAGS) $(UNIT_FRONTEND_$*) -o $@ $< $(addprefix src/,$(UNIT_$*)) $(UNIT_LIBS) $(UNIT_LIBS_$*)

.PHONY: unit fuzz
unit: $(addprefix build/unit/,$(UNIT_TESTS))
	@failed=0; for t in $(UNIT_TESTS); do echo "# $$t"; build/unit/$$t || failed=1; done; exit $$failed

FUZZ_TESTS = $(patsubst test/fuzz/fuzz_%.c,%,$(sort $(wildcard test/fuzz/fuzz_*.c)))
FUZZ_SECONDS ?= 10

build/fuzz/%: test/fuzz/fuzz_%.c $(wildcard src/*.c src/*.h)
	@mkdir -p build/fuzz
	clang $(UNIT_CFLAGS) -Wno-ignored-attributes -fsanitize=fuzzer,address,undefined -o $@ $< $(addprefix src/,$(UNIT_$*)) $(UNIT_LIBS) $(UNIT_LIBS_$*)

fuzz: $(addprefix build/fuzz/,$(FUZZ_TESTS))
	@for t in $(FUZZ_TESTS); do echo "# fuzz $$t"; \
		test/fuzz/corpus $$t build/corpus/$$t && build/fuzz/$$t build/corpus/$$t -max_total_time=$(FUZZ_SECONDS) -timeout=20 -verbosity=0 \
			-artifact_prefix=build/fuzz/ || exit 1; done
