/*
 * fuzz_prepared_name.c
 *		Any bytes as the name of a prepared transaction.
 *
 * Names come from other servers, and what is read of one makes this server roll
 * back there: so what is read must be written the same again, and fit where
 * names go.  libFuzzer entry point.
 */
#include "postgres.h"

#include "../../src/prepared_name.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text = malloc(size + 1);
	char		again[RETRY_PREPARED_NAME_MAX];
	RetryPreparedName name;

	memcpy(text, data, size);
	text[size] = '\0';
	if (retry_prepared_name_read(text, &name))
	{
		retry_prepared_name_write(&name, again);
		if (strcmp(text, again) != 0)
			abort();
	}
	free(text);
	return 0;
}
