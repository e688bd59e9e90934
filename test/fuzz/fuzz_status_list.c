/*
 * fuzz_status_list.c
 *		Any text as a list of statuses and as a list of error classes.
 *
 * Neither reader may look beyond its text or write beyond its set; what is
 * refused names a part that lies within the text; what is accepted, written
 * out again status by status, means the same.
 */
#include "postgres.h"

#include "../../src/status_list.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

static void
must_name_part(const char *text, const RetryParseError *err)
{
	int			len = strlen(text);

	MUST(err->part_at >= 0 && err->part_len > 0 && err->part_at + err->part_len <= len);
	MUST(err->reason[0] != '\0' && err->hint[0] != '\0');
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	RetryStatusSet set;
	RetryStatusSet again;
	RetryErrorSet errors;
	RetryParseError err;
	char	   *text = malloc(size + 1);
	char		list[(RETRY_STATUS_MAX - RETRY_STATUS_MIN + 1) * 4 + 1];
	char	   *to = list;

	memcpy(text, data, size);
	text[size] = '\0';
	if (!retry_status_list_parse(text, &set, &err))
		must_name_part(text, &err);
	else
	{
		for (int status = 0; status < 1000; status++)
		{
			if (retry_status_set_has(&set, status))
			{
				MUST(status >= RETRY_STATUS_MIN && status <= RETRY_STATUS_MAX);
				to += sprintf(to, "%s%d", to == list ? "" : ",", status);
			}
		}
		*to = '\0';
		MUST(retry_status_list_parse(list, &again, &err) && memcmp(&set, &again, sizeof(set)) == 0);
	}

	if (!retry_error_list_parse(text, &errors, &err))
		must_name_part(text, &err);
	else
		MUST(errors.nstates >= 0 && errors.nstates <= RETRY_ERROR_SET_STATES &&
			 errors.classes < UINT32_C(1) << RETRY_CLASSES);
	free(text);
	return 0;
}
