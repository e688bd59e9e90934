/*
 * mail_message.c
 *		A mail: what it is made from, its text, and the envelope it travels in.
 *
 * Everything leaves as ASCII in short lines: names and subjects as encoded words
 * (RFC 2047) when they are not plain, the text as quoted-printable (RFC 2045), so
 * that no server on the way has a reason to change it.  A dot at the beginning of
 * a line is written =2E, which saves doubling it.
 */
#include "postgres.h"

#include <time.h>

#include "common/base64.h"
#include "mb/pg_wchar.h"

#include "mail_message.h"

#define LINE_BYTES		76		/* of quoted-printable, without its end */
#define WORD_BYTES		39		/* of UTF-8 in one encoded word */
#define WORD_BASE64		52		/* which are so many in base64 */
#define PLAIN_BYTES		60		/* longer headers are encoded, word by word */

static const char hex_digits[] = "0123456789ABCDEF";

static bool
fail(char *err, size_t err_size, const char *message)
{
	snprintf(err, err_size, "%s", message);
	return false;
}

/* Bytes of the UTF-8 character at "at"; 0 when there is none that is valid. */
static int
utf8_length(const char *at, const char *end)
{
	const unsigned char *u = (const unsigned char *) at;
	int			len = pg_utf_mblen(u);

	return len <= end - at && pg_utf8_islegal(u, len) ? len : 0;
}

/* ---------------------------------------------------------------- mailboxes */

static bool
is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Parts of these bytes with dots between, none of them empty or too long. */
static bool
dotted(const char *text, size_t len, const char *besides, size_t part_most)
{
	size_t		part = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '.')
		{
			if (part == 0)
				return false;
			part = 0;
		}
		else if ((!is_alnum(text[i]) && strchr(besides, text[i]) == NULL) || ++part > part_most)
			return false;
	}
	return part > 0;
}

static bool
read_address(const char *text, size_t len, char *err, size_t err_size)
{
	const char *at = memchr(text, '@', len);
	size_t		domain;

	if (at == NULL)
		return fail(err, err_size, "there is no @ in it");
	if (len > RETRY_MAILBOX_ADDRESS || at - text > 64)
		return fail(err, err_size, "the address is too long");
	if (memchr(text, '\0', len) != NULL || !dotted(text, at - text, "!#$%&'*+/=?^_`{|}~-", 64))
		return fail(err, err_size, "what stands before the @ is not letters, digits and !#$%&'*+/=?^_`{|}~- with dots between");
	domain = text + len - at - 1;
	if (!dotted(at + 1, domain, "-", 63) || at[1] == '-' || at[domain] == '-')
		return fail(err, err_size, "what stands behind the @ is no name of a domain; others than ASCII are written xn--");
	return true;
}

static bool
read_name(const char *text, size_t len, char *err, size_t err_size)
{
	if (len > RETRY_MAILBOX_NAME)
		return fail(err, err_size, "the name is too long");
	for (size_t i = 0; i < len;)
	{
		int			bytes = utf8_length(text + i, text + len);

		if (bytes == 0 || (unsigned char) text[i] < ' ' || text[i] == 0x7F ||
			(bytes == 2 && (unsigned char) text[i] == 0xC2 && (unsigned char) text[i + 1] < 0xA0))
			return fail(err, err_size, "the name has a control character, or is no UTF-8");
		i += bytes;
	}
	return true;
}

bool
retry_mailbox_parse(const char *text, RetryMailbox *mailbox, char *err, size_t err_size)
{
	size_t		len = strlen(text);
	const char *open = len > 0 && text[len - 1] == '>' ? strrchr(text, '<') : NULL;

	memset(mailbox, 0, sizeof(*mailbox));
	mailbox->address = text;
	mailbox->address_len = len;
	if (open != NULL)
	{
		mailbox->address = open + 1;
		mailbox->address_len = text + len - 1 - mailbox->address;
		mailbox->name = text;
		mailbox->name_len = open - text;
		while (mailbox->name_len > 0 && mailbox->name[mailbox->name_len - 1] == ' ')
			mailbox->name_len--;
		while (mailbox->name_len > 0 && *mailbox->name == ' ')
			mailbox->name++, mailbox->name_len--;
		if (mailbox->name_len >= 2 && *mailbox->name == '"' && mailbox->name[mailbox->name_len - 1] == '"')
			mailbox->name++, mailbox->name_len -= 2;
	}
	return read_name(mailbox->name, mailbox->name_len, err, err_size) &&
		read_address(mailbox->address, mailbox->address_len, err, err_size);
}

/* ---------------------------------------------------------------- the body of a task */

/* A JSON text being read, and where strings of it are written to. */
typedef struct Reader
{
	const char *at;
	const char *end;
	char	   *to;
} Reader;

static void
skip_blanks(Reader *r)
{
	while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
		r->at++;
}

static bool
take(Reader *r, char c)
{
	skip_blanks(r);
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

/* Four hexadecimal digits; -1 when they are none. */
static int
read_unit(Reader *r)
{
	int			unit = 0;

	if (r->end - r->at < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		char		c = *r->at++;

		if (c >= '0' && c <= '9')
			unit = unit * 16 + c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			unit = unit * 16 + (c | 0x20) - 'a' + 10;
		else
			return -1;
	}
	return unit;
}

/* What follows \u, as UTF-8: never more bytes than it was written with. */
static bool
read_unicode(Reader *r)
{
	int			c = read_unit(r);

	if (c > 0 && is_utf16_surrogate_first(c) && r->end - r->at >= 2 && r->at[0] == '\\' && r->at[1] == 'u')
	{
		int			low;

		r->at += 2;
		low = read_unit(r);
		if (low < 0 || !is_utf16_surrogate_second(low))
			return false;
		c = surrogate_pair_to_codepoint(c, low);
	}
	if (c <= 0 || is_utf16_surrogate_first(c) || is_utf16_surrogate_second(c))
		return false;
	unicode_to_utf8(c, (unsigned char *) r->to);
	r->to += pg_utf_mblen((unsigned char *) r->to);
	return true;
}

static bool
read_escape(Reader *r)
{
	static const char escapes[] = "\"\\/bfnrt";
	static const char meant[] = "\"\\/\b\f\n\r\t";
	const char *found;

	if (r->at == r->end)
		return false;
	if (*r->at == 'u')
	{
		r->at++;
		return read_unicode(r);
	}
	found = *r->at != '\0' ? strchr(escapes, *r->at) : NULL;
	if (found == NULL)
		return false;
	r->at++;
	*r->to++ = meant[found - escapes];
	return true;
}

/* A string, terminated; NULL when there is none. */
static char *
read_string(Reader *r)
{
	char	   *start = r->to;

	if (!take(r, '"'))
		return NULL;
	while (r->at < r->end && *r->at != '"')
	{
		int			len = utf8_length(r->at, r->end);

		if (len == 0 || (unsigned char) *r->at < ' ')
			return NULL;
		if (*r->at == '\\')
		{
			r->at++;
			if (!read_escape(r))
				return NULL;
			continue;
		}
		memcpy(r->to, r->at, len);
		r->to += len;
		r->at += len;
	}
	if (r->at == r->end)
		return NULL;
	r->at++;
	*r->to++ = '\0';
	return start;
}

static bool
read_member(Reader *r, RetryMailFields *fields)
{
	char	   *name = read_string(r);
	char	   *value;
	char	  **place;

	if (name == NULL || !take(r, ':') || (value = read_string(r)) == NULL)
		return false;
	if (strcmp(name, "to") == 0)
		place = &fields->to;
	else if (strcmp(name, "subject") == 0)
		place = &fields->subject;
	else if (strcmp(name, "text") == 0)
		place = &fields->text;
	else
		return false;
	if (*place != NULL)
		return false;
	*place = value;
	return true;
}

bool
retry_mail_fields(const char *body, size_t body_len, char *room, RetryMailFields *fields, const char **why)
{
	Reader		r = {.at = body,.end = body + body_len,.to = room};
	bool		good;

	memset(fields, 0, sizeof(*fields));
	*why = "its scene sends mail, and its body is not an object with the strings subject and text, and to or not";
	good = take(&r, '{');
	do
		good = good && read_member(&r, fields);
	while (good && take(&r, ','));
	good = good && take(&r, '}');
	skip_blanks(&r);
	return good && r.at == r.end && fields->subject != NULL && fields->text != NULL;
}

/* ---------------------------------------------------------------- the mail */

/* Lines being written; "column" is how much the last of them has. */
typedef struct Writer
{
	char	   *at;
	size_t		column;
} Writer;

static void
put(Writer *w, const char *text, size_t len)
{
	memcpy(w->at, text, len);
	w->at += len;
	w->column += len;
}

static void
put_text(Writer *w, const char *text)
{
	put(w, text, strlen(text));
}

static void
end_line(Writer *w)
{
	*w->at++ = '\r';
	*w->at++ = '\n';
	w->column = 0;
}

/* Begins a new line of the same header, if the next piece is too long for this one. */
static void
fold(Writer *w, size_t next)
{
	if (w->column > 1 && w->column + next > LINE_BYTES)
	{
		if (w->at[-1] == ' ')
			w->at--;
		end_line(w);
		put(w, " ", 1);
	}
}

/* An encoded word of at most WORD_BYTES. */
static void
put_word(Writer *w, const char *bytes, size_t len)
{
	int			written;

	put_text(w, "=?UTF-8?B?");
	/* the bytes of base64 are char up to 17 and uint8 from 18 on: hence void */
	written = pg_b64_encode((const void *) bytes, (int) len, w->at, WORD_BASE64);
	w->at += written;
	w->column += written;
	put_text(w, "?=");
}

/* Text of a header as encoded words, each of whole characters. */
static void
put_encoded(Writer *w, const char *text, size_t len)
{
	const char *end = text + len;
	char		word[WORD_BYTES];

	while (text < end)
	{
		size_t		n = 0;

		while (text < end)
		{
			int			bytes = utf8_length(text, end);
			char		one = bytes == 0 ? '?' : (unsigned char) *text < ' ' || *text == 0x7F ? ' ' : *text;

			if (n + Max(bytes, 1) > WORD_BYTES)
				break;
			word[n++] = one;
			for (int i = 1; i < bytes; i++)
				word[n++] = text[i];
			text += Max(bytes, 1);
		}
		fold(w, 12 + 4 * ((n + 2) / 3));
		put_word(w, word, n);
		if (text < end)
			put(w, " ", 1);
	}
}

/* May it stand in a header as it is? */
static bool
is_plain(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < ' ' || text[i] > '~' || (text[i] == '=' && i + 1 < len && text[i + 1] == '?'))
			return false;
	}
	return len <= PLAIN_BYTES;
}

/* A mailbox in a header: its name as a quoted string, or encoded. */
static void
put_mailbox(Writer *w, const RetryMailbox *mailbox)
{
	if (mailbox->name_len > 0 && is_plain(mailbox->name, mailbox->name_len))
	{
		size_t		escapes = 0;

		for (size_t i = 0; i < mailbox->name_len; i++)
			escapes += strchr("\"\\", mailbox->name[i]) != NULL;
		fold(w, mailbox->name_len + escapes + 3);
		put(w, "\"", 1);
		for (size_t i = 0; i < mailbox->name_len; i++)
		{
			if (strchr("\"\\", mailbox->name[i]) != NULL)
				put(w, "\\", 1);
			put(w, mailbox->name + i, 1);
		}
		put(w, "\" ", 2);
	}
	else if (mailbox->name_len > 0)
	{
		put_encoded(w, mailbox->name, mailbox->name_len);
		put(w, " ", 1);
	}
	fold(w, mailbox->address_len + 3);
	put(w, "<", 1);
	put(w, mailbox->address, mailbox->address_len);
	put(w, ">", 1);
}

static void
put_subject(Writer *w, const char *subject)
{
	size_t		len = strlen(subject);

	put_text(w, "Subject: ");
	if (is_plain(subject, len))
		put(w, subject, len);
	else
		put_encoded(w, subject, len);
	end_line(w);
}

static void
put_date(Writer *w, int64 unix_time)
{
	static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t		moment = (time_t) unix_time;
	struct tm	date = {0};
	char		text[64];

	/* a year of four digits is all that the format has room for */
	if (unix_time < 0 || unix_time > INT64CONST(253402300799))
		moment = 0;
	gmtime_r(&moment, &date);
	snprintf(text, sizeof(text), "Date: %s, %02d %s %04d %02d:%02d:%02d +0000", days[date.tm_wday], date.tm_mday,
			 months[date.tm_mon], date.tm_year + 1900, date.tm_hour, date.tm_min, date.tm_sec);
	put_text(w, text);
	end_line(w);
}

/* One byte of the text as quoted-printable; the line goes on below when it is full. */
static void
put_quoted(Writer *w, char c, bool last)
{
	bool		plain = c > ' ' && c <= '~' && c != '=';

	if ((c == ' ' || c == '\t') && !last)
		plain = true;
	if (w->column == 0 && (c == '.' || c == 'F'))
		plain = false;			/* the end of a mail; "From ", which some
								 * programs change */
	if (w->column + (plain ? 1 : 3) >= LINE_BYTES)
	{
		put(w, "=", 1);
		end_line(w);
		if (c == '.' || c == 'F')
			plain = false;
	}
	if (plain)
		put(w, &c, 1);
	else
	{
		char		hex[3] = {'=', hex_digits[(unsigned char) c >> 4], hex_digits[(unsigned char) c & 15]};

		put(w, hex, 3);
	}
}

/* The text, whatever its lines end in. */
static void
put_body(Writer *w, const char *text)
{
	for (; *text != '\0'; text++)
	{
		if (*text == '\r' || *text == '\n')
		{
			if (text[0] == '\r' && text[1] == '\n')
				text++;
			end_line(w);
		}
		else
			put_quoted(w, *text, text[1] == '\0' || text[1] == '\r' || text[1] == '\n');
	}
	if (w->column > 0)
		end_line(w);
}

/* A command of the envelope. */
static void
put_command(Writer *w, const char *command, const RetryMailbox *mailbox)
{
	put_text(w, command);
	put(w, mailbox->address, mailbox->address_len);
	put_text(w, ">");
	end_line(w);
}

size_t
retry_mail_room(const RetryMail *mail)
{
	size_t		room = 1000 + 4 * strlen(mail->from) + 4 * strlen(mail->subject) + 4 * strlen(mail->text) +
	strlen(mail->id);

	/* in the envelope and, encoded and folded, in a header */
	for (int i = 0; i < mail->to_count; i++)
		room += 100 + 5 * strlen(mail->to[i]);
	return room;
}

size_t
retry_mail_write(const RetryMail *mail, char *out, size_t *script_len)
{
	Writer		w = {.at = out};
	RetryMailbox from;
	RetryMailbox to;
	char		err[256];

	if (!retry_mailbox_parse(mail->from, &from, err, sizeof(err)))
		return 0;
	put_command(&w, "MAIL FROM:<", &from);
	for (int i = 0; i < mail->to_count; i++)
	{
		if (!retry_mailbox_parse(mail->to[i], &to, err, sizeof(err)))
			return 0;
		if (mail->only == NULL || strcmp(mail->only, mail->to[i]) == 0)
			put_command(&w, "RCPT TO:<", &to);
	}
	put_text(&w, "DATA");
	end_line(&w);
	*script_len = w.at - out;

	put_date(&w, mail->unix_time);
	put_text(&w, "From: ");
	put_mailbox(&w, &from);
	end_line(&w);
	put_text(&w, "To: ");
	for (int i = 0; i < mail->to_count; i++)
	{
		(void) retry_mailbox_parse(mail->to[i], &to, err, sizeof(err));
		put_mailbox(&w, &to);
		if (i + 1 < mail->to_count)
			put_text(&w, ", ");
	}
	end_line(&w);
	put_subject(&w, mail->subject);
	put_text(&w, "Message-ID:");
	put(&w, " <", 2);
	put_text(&w, mail->id);
	put(&w, from.address + (strcspn(from.address, "@")), from.address_len - strcspn(from.address, "@"));
	put_text(&w, ">");
	end_line(&w);
	put_text(&w, "Auto-Submitted: auto-generated");
	end_line(&w);
	put_text(&w, "MIME-Version: 1.0");
	end_line(&w);
	put_text(&w, "Content-Type: text/plain; charset=UTF-8");
	end_line(&w);
	put_text(&w, "Content-Transfer-Encoding: quoted-printable");
	end_line(&w);
	end_line(&w);
	put_body(&w, mail->text);
	put_text(&w, ".");
	end_line(&w);
	return w.at - out;
}
