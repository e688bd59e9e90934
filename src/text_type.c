/*
 * text_type.c
 *		What the types whose form is a text have in common on the SQL side.
 *
 * A message about a text repeats it and the part that is wrong with it, cut
 * where that is long.  The binary form is the text behind a version byte, so
 * that a later version may be told apart, and one reader checks all there is.
 */
#include "postgres.h"

#include "libpq/pqformat.h"

#include "quote.h"
#include "text_type.h"

void
retry_refuse_text(const char *type, const char *text, const RetryParseError *err, int sqlstate)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("invalid input syntax for type %s: \"%s\"", type, retry_quoted_string(text)),
			 errdetail("\"%s\" %s.", retry_quoted(text + err->part_at, err->part_len), err->reason),
			 errhint("%s", err->hint)));
}

char *
retry_receive_text(StringInfo buf, int version, const char *type)
{
	int			given = pq_getmsgbyte(buf);
	int			len;

	if (given != version)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("unsupported binary version %d of type %s", given, type),
				 errhint("Only version %d is known.", version)));
	return pq_getmsgtext(buf, buf->len - buf->cursor, &len);
}

bytea *
retry_send_text(int version, const char *text, int len)
{
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendbyte(&buf, version);
	pq_sendtext(&buf, text, len);
	return pq_endtypsend(&buf);
}
