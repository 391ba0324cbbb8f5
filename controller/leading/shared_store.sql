-- What the controllers of a network share: which of them leads, and what a controller must not forget.
-- They may only call these functions, each of which is one round trip and one transaction. What they refuse has the
-- SQLSTATE QK010, but for QK011: the term of who asks is over. Time is this server's alone.

-- One row. `until`: when another one may lead. `heard`: when the leader last said that it is there.
CREATE TABLE IF NOT EXISTS leader (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    name  text NOT NULL,
    term  bigint NOT NULL,
    until timestamptz NOT NULL,
    heard timestamptz NOT NULL
);
-- Key sessions and settings, each as one document.
CREATE TABLE IF NOT EXISTS kept (
    kind     text NOT NULL CHECK (kind IN ('session', 'setting')),
    name     text NOT NULL CHECK (length(name) <= 256),
    document text NOT NULL CHECK (octet_length(document) <= 1 << 20),
    PRIMARY KEY (kind, name)
);

CREATE OR REPLACE FUNCTION ctl_check_speaker(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF session_user LIKE 'controller-%' AND session_user IS DISTINCT FROM 'controller-' || p_name THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s cannot speak for controller %s', session_user, p_name);
    END IF;
END $$;

-- Who leads now: `p_name`, in a new term, if nobody else does and it is to (`p_take`). Milliseconds that are left of the lease, and since the
-- leader, or the one before it, was heard last (-1: there was none). A controller that comes again takes its own lease
-- over: there is one of a name, and what was before it is no more.
CREATE OR REPLACE FUNCTION ctl_lead(p_name text, p_lease_ms bigint, p_take boolean)
RETURNS TABLE (name text, term bigint, left_ms bigint, silent_ms bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    was leader;
    now_is timestamptz;
BEGIN
    PERFORM ctl_check_speaker(p_name);
    SELECT * INTO was FROM leader;
    IF was.name = p_name OR (p_take AND was.until <= clock_timestamp()) THEN
        SELECT * INTO was FROM leader FOR UPDATE;  -- not at each look: it would be a commit
    END IF;
    now_is := clock_timestamp();
    IF was.name = p_name OR (p_take AND was.until <= now_is) THEN
        UPDATE leader SET name = p_name, term = was.term + 1, heard = now_is,
            until = now_is + p_lease_ms * interval '1 ms';
        RETURN QUERY SELECT p_name, was.term + 1, p_lease_ms,
            CASE WHEN was.term = 0 THEN -1 ELSE (1000 * extract(epoch FROM now_is - was.heard))::bigint END;
    ELSE
        RETURN QUERY SELECT was.name, was.term, (1000 * extract(epoch FROM was.until - now_is))::bigint,
            (1000 * extract(epoch FROM now_is - was.heard))::bigint;
    END IF;
END $$;

-- The leader of that term is there, and leads on; another one gets to hear who leads. `p_above`: a term that somebody
-- has heard of. If it is not below the leader's own, this server has lost what another one had committed; then the
-- leader's term is above it from now on.
CREATE OR REPLACE FUNCTION ctl_renew(p_name text, p_term bigint, p_above bigint, p_lease_ms bigint)
RETURNS TABLE (name text, term bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM ctl_check_speaker(p_name);
    UPDATE leader SET term = greatest(term, p_above + 1), heard = clock_timestamp(),
        until = clock_timestamp() + p_lease_ms * interval '1 ms'
        WHERE name = p_name AND term = p_term AND term > 0;
    RETURN QUERY SELECT l.name, l.term FROM leader l;
END $$;

-- The leader of that term leads no more: another one may at once.
CREATE OR REPLACE FUNCTION ctl_resign(p_name text, p_term bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM ctl_check_speaker(p_name);
    UPDATE leader SET until = clock_timestamp() WHERE name = p_name AND term = p_term AND term > 0;
END $$;

-- Keep a document in place of what was there, or forget it (NULL). The row of the leader stays as it is until that is
-- committed: who leads next finds it, or it never happens.
CREATE OR REPLACE FUNCTION ctl_keep(p_name text, p_term bigint, p_kind text, p_key text, p_document text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM ctl_check_speaker(p_name);
    PERFORM FROM leader WHERE name = p_name AND term = p_term AND term > 0 FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'QK011', MESSAGE = format('term %s of controller %s is over', p_term, p_name);
    END IF;
    IF p_document IS NULL THEN
        DELETE FROM kept WHERE kind = p_kind AND kept.name = p_key;
    ELSE
        INSERT INTO kept VALUES (p_kind, p_key, p_document)
            ON CONFLICT (kind, name) DO UPDATE SET document = excluded.document;
    END IF;
END $$;

-- All documents of a kind, by name.
CREATE OR REPLACE FUNCTION ctl_kept(p_name text, p_kind text) RETURNS TABLE (key text, document text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM ctl_check_speaker(p_name);
    RETURN QUERY SELECT k.name, k.document FROM kept k WHERE k.kind = p_kind ORDER BY k.name;
END $$;

REVOKE ALL ON FUNCTION ctl_check_speaker, ctl_lead, ctl_renew, ctl_resign, ctl_keep, ctl_kept FROM PUBLIC;
