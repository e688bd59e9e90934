/*
 * fuzz_mail_message.c
 *		Any text as an address, as the body of a task, and as what a mail says.
 *
 * Whatever goes in, what comes out is an envelope of commands that were meant,
 * nine headers, and a text of short ASCII lines that ends at its end only.
 * libFuzzer entry point: address, subject and text are separated by a byte 0.
 */
#include "postgres.h"

#include "../../src/mail_message.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

/* Lines of at most 78 bytes of ASCII, long addresses apart, ended by CR LF; how many up to an empty one. */
static int
count_lines(const char *text, size_t len, bool *whole)
{
	int			lines = 0;
	bool		counting = true;
	size_t		at = 0;

	while (at < len)
	{
		size_t		start = at;

		while (at < len && text[at] != '\r')
		{
			MUST((text[at] >= ' ' && text[at] <= '~') || (text[at] == '\t' && !counting));
			at++;
		}
		MUST(at + 1 < len && text[at + 1] == '\n' && (at - start <= 78 || memchr(text + start, '@', at - start) != NULL));
		counting = counting && at > start;
		lines += counting && text[start] != ' ';
		if (at - start == 1 && text[start] == '.')
			MUST(at + 2 == len);
		at += 2;
	}
	*whole = len >= 3 && memcmp(text + len - 3, ".\r\n", 3) == 0;
	return lines;
}

static void
check_mail(const char *address, const char *subject, const char *text)
{
	const char *to[] = {"x@y", address};
	RetryMail	mail = {
		.from = address,.to = to,.to_count = 2,.subject = subject,.text = text,.id = "i",.unix_time = (int64) strlen(text) << 28
	};
	size_t		room = retry_mail_room(&mail);
	char	   *out = malloc(room);
	size_t		script = 0;
	size_t		len = retry_mail_write(&mail, out, &script);
	RetryMailbox box;
	char		err[256];
	bool		whole;

	if (!retry_mailbox_parse(address, &box, err, sizeof(err)))
		MUST(len == 0 && err[0] != '\0');
	else
	{
		int			commands = 0;

		MUST(len > script && len <= room);
		for (size_t i = 0; i < script; i++)
			commands += out[i] == '\n';
		MUST(commands == 4 && memcmp(out + script - 8, "\r\nDATA\r\n", 8) == 0);
		MUST(count_lines(out + script, len - script, &whole) == 9 && whole);
	}
	free(out);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *room = malloc(size + 3);
	char	   *body = malloc(size + 1);
	char	   *subject;
	RetryMailFields fields;
	const char *why;

	memcpy(body, data, size);
	body[size] = '\0';
	if (retry_mail_fields(body, size, room, &fields, &why))
		check_mail("Ada <a@b>", fields.subject, fields.text);
	subject = memchr(body, '\0', size);
	subject = subject != NULL ? subject + 1 : body;
	check_mail(body, subject, body + strlen(body) < subject + strlen(subject) && subject + strlen(subject) < body + size ?
			   subject + strlen(subject) + 1 : subject);
	check_mail("a@b", body, subject);
	free(room);
	free(body);
	return 0;
}
