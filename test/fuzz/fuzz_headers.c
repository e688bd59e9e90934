/*
 * fuzz_headers.c
 *		Any text as a header of a request, any bytes as those of an answer.
 *
 * A header that is let out must be one line that another reader takes for just
 * that name and value, and that libcurl does not take for an order to leave one
 * out.  What comes in is split into lines as libcurl hands them over, without a
 * final NUL, each in a block of exactly its size; what is made of it must be
 * terminated, free of control characters, and within its bounds.  libFuzzer
 * entry point; the first byte chooses.  The client's source is included, since
 * what reads the lines is nobody else's to call.
 */
#include "../../src/http_transfer.c"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition) do { if (!(condition)) __builtin_trap(); } while (0)

#define TOKEN "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if (((unsigned char) *text < ' ' && *text != '\t') || *text == 0x7f)
			return true;
	return false;
}

static void
send_line(const char *line)
{
	static const char *const framing[] = {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"};
	char		err[256] = "";
	size_t		name = strspn(line, TOKEN);
	char	   *written;

	if (!retry_header_line_check(line, err, sizeof(err)))
	{
		MUST(err[0] != '\0' && !has_control(err));
		return;
	}
	MUST(name > 0 && line[name] == ':' && !has_control(line));
	for (int i = 0; i < lengthof(framing); i++)
		MUST(strlen(framing[i]) != name || strncasecmp(line, framing[i], name) != 0);

	/* "Name:" alone would have libcurl leave out a header of its own */
	written = malloc(strlen(line) + 1);
	MUST(copy_header_line(written, line) == strlen(line) + 1);
	MUST(strncmp(written, line, name) == 0);
	if (line[name + 1 + strspn(line + name + 1, " \t")] == '\0')
		MUST(written[name] == ';' && written[name + 1] == '\0');
	else
		MUST(strcmp(written, line) == 0);
	free(written);
}

static void
receive_lines(const char *at, size_t size)
{
	RetryTransfer *t = calloc(1, sizeof(RetryTransfer));
	const char *end = at + size;

	t->announced = -1;
	while (at < end)
	{
		const char *newline = memchr(at, '\n', end - at);
		size_t		len = newline != NULL ? newline + 1 - at : end - at;
		char	   *line = malloc(len);
		size_t		taken;

		memcpy(line, at, len);
		taken = receive_header(line, 1, len, t);
		free(line);
		MUST(taken == len || (taken == 0 && (t->two_lengths || t->headers_too_long)));
		if (taken == 0)
			break;
		at += len;
	}
	MUST(t->status >= 0 && t->status < 10000 && (!t->headers_complete || t->status >= 200));
	MUST(t->announced >= -1);
	MUST(memchr(t->result.content_type, '\0', sizeof(t->result.content_type)) != NULL);
	MUST(memchr(t->result.retry_control, '\0', sizeof(t->result.retry_control)) != NULL);
	MUST(!has_control(t->result.content_type) && !has_control(t->result.retry_control));
	free(t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;

	if (size == 0)
		return 0;
	if (data[0] % 2 == 0)
	{
		text = strndup((const char *) data + 1, size - 1);
		send_line(text);
		free(text);
	}
	else
		receive_lines((const char *) data + 1, size - 1);
	return 0;
}
