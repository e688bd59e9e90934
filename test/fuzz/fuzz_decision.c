/*
 * fuzz_decision.c
 *		Any bytes as the answer to a check.
 *
 * They come from the network and are not terminated: nothing beyond their length
 * may be read.  What decides must have the word in it, and what is cut off an
 * object's end must not decide.  libFuzzer entry point.
 */
#include "postgres.h"

#include "../../src/decision.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
has_word(const char *body, size_t size, const char *word)
{
	size_t		len = strlen(word);

	for (size_t i = 0; i + len <= size; i++)
	{
		if (memcmp(body + i, word, len) == 0)
			return true;
	}
	return false;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *body = malloc(size > 0 ? size : 1);
	RetryDecision decision;
	const char *word;

	memcpy(body, data, size);
	decision = retry_decision_read(body, size);
	word = retry_decision_word(decision);
	if (decision != RETRY_UNDECIDED && !has_word(body, size, word))
		abort();
	if (decision != RETRY_UNDECIDED && body[size - 1] == '}' &&
		retry_decision_read(body, size - 1) != RETRY_UNDECIDED)
		abort();
	free(body);
	return 0;
}
