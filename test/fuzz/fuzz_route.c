/*
 * fuzz_route.c
 *		Fuzzes the text of a target, and what routes make of any health.
 *
 * A text that is accepted must give a URL that the one reader of URLs accepts
 * too, and a weight in its range; whatever states the targets are in, a route
 * must choose one that may be chosen, or none and a moment to ask again that is
 * not further away than the longest time out.  (Run with
 * -fsanitize=fuzzer,address,undefined.)
 */
#include "postgres.h"

#include "../../src/route.h"
#include "../../src/url.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)
#define TARGETS 5

static void
fuzz_text(const uint8 *data, size_t size)
{
	char	   *text = malloc(size + 1);
	char		err[RETRY_ROUTE_ERROR];
	int			len;
	int32		weight;

	memcpy(text, data, size);
	text[size] = '\0';
	if (retry_route_parse_target(text, &len, &weight, err, sizeof(err)))
	{
		MUST(weight >= 1 && weight <= RETRY_ROUTE_WEIGHT_MAX);
		MUST(len > 0 && len <= strlen(text));
		text[len] = '\0';
		MUST(retry_url_check(text, NULL, err, sizeof(err)));
	}
	else
		MUST(strlen(err) > 0 && strlen(err) < sizeof(err));
	free(text);
}

/* Each byte is a step in the life of one of the targets. */
static void
fuzz_health(const uint8 *data, size_t size)
{
	RetryRouteState states[TARGETS] = {0};
	RetryRouteTarget targets[TARGETS];
	int			under_way[TARGETS] = {0};
	TimestampTz now = 1000;
	uint64		uses = 0;

	for (int i = 0; i < TARGETS; i++)
	{
		targets[i].url = NULL;
		targets[i].hash = i * UINT64CONST(0x9E3779B97F4A7C15);
		targets[i].weight = 1 + i * 249;
		targets[i].state = &states[i];
	}
	for (size_t n = 0; n + 1 < size; n += 2)
	{
		TimestampTz again = 0;
		int			chosen = retry_route_choose((RetryRoute) (data[n] % RETRY_ROUTES), targets, TARGETS,
												data[n + 1], data[n] * UINT64CONST(0x9E3779B97F4A7C15),
												now, &again);

		if (chosen < 0)
		{
			MUST(again > now && again <= now + RETRY_ROUTE_OUT_MAX_US);
			now = data[n + 1] & 1 ? again : now + 1;
		}
		else
		{
			bool		probe = retry_route_started(&states[chosen], ++uses);

			MUST(chosen < TARGETS && (!probe || states[chosen].probing));
			if (!probe && (data[n + 1] & 64))
				under_way[chosen]++;
			else
				retry_route_ended(&states[chosen], probe, (RetryRouteEnd) (data[n + 1] % 4), now);
		}
		for (int i = 0; i < TARGETS; i++)
		{
			if (under_way[i] > 0 && (data[n] >> i) & 1)
			{
				under_way[i]--;
				retry_route_ended(&states[i], false, (RetryRouteEnd) (data[n + 1] >> 6), now);
			}
			MUST(states[i].in_flight == under_way[i]);
			MUST(!states[i].probing);
		}
		if (data[n + 1] & 128)
			now += (TimestampTz) data[n] * 100000;
	}
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		fuzz_text(data + 1, size - 1);
	else
		fuzz_health(data + 1, size - 1);
	return 0;
}
