-- Schema of the shared database and the statements that decide in it; each function is one round trip.
-- Nodes may only call these functions, which are in PL/pgSQL for its plans: those of SQL functions are made at each call.
-- They check all that the database can know of what a node asks. What they refuse has the SQLSTATE QK001, and a message
-- that names the argument and what was expected: no node of ours asks for it.
-- The rule of allocation is that of decisions/ranges.py.

-- Who is in the network, and which QCs join whom: the owner says so before anybody connects.
-- `secret`: of that node and the database. `inner_pad`, `outer_pad`: the keys of HMAC (RFC 2104) that are made of it.
CREATE TABLE IF NOT EXISTS node (
    name      text PRIMARY KEY,
    secret    bytea NOT NULL,
    inner_pad bytea NOT NULL,
    outer_pad bytea NOT NULL,
    told      bigint NOT NULL DEFAULT 0  -- how far its local database has counted, which only grows
);
CREATE TABLE IF NOT EXISTS sae (
    id   text PRIMARY KEY,
    node text NOT NULL REFERENCES node
);
CREATE TABLE IF NOT EXISTS qc (
    name    text PRIMARY KEY,
    node_a  text NOT NULL REFERENCES node,
    node_b  text NOT NULL REFERENCES node,
    -- The server (qkd_server) to which each end has reported, the epoch that is current there and the first byte of it
    -- that the end has not given up, and the number of the report that said so.
    server_a text NOT NULL DEFAULT '',
    server_b text NOT NULL DEFAULT '',
    epoch_a bigint NOT NULL DEFAULT 0,
    epoch_b bigint NOT NULL DEFAULT 0,
    said_a  bigint NOT NULL DEFAULT 0,
    said_b  bigint NOT NULL DEFAULT 0,
    floor_a bigint NOT NULL DEFAULT 0,
    floor_b bigint NOT NULL DEFAULT 0,
    -- The epoch that was the last to be current at both ends, the bytes of it on which they agree, the next free byte.
    epoch   bigint NOT NULL DEFAULT 0,
    floor   bigint NOT NULL DEFAULT 0,
    head    bigint NOT NULL DEFAULT 0,
    tail    bigint NOT NULL DEFAULT 0
);

-- The next free byte of epochs that others have followed, for ever: should both ends come back to one, no byte of it is
-- given out again.
CREATE TABLE IF NOT EXISTS past_epoch (
    qc    text NOT NULL,
    epoch bigint NOT NULL,
    tail  bigint NOT NULL,
    PRIMARY KEY (qc, epoch)
);

-- Blocks that an end has said that it holds in its current epoch, and that the other end has not agreed to yet.
-- `differs`: the other end has another one in its place; it stays until this end has given it up.
CREATE TABLE IF NOT EXISTS mark (
    qc       text NOT NULL,
    node     text NOT NULL,
    epoch    bigint NOT NULL,
    start_at bigint NOT NULL,
    end_at   bigint NOT NULL,
    digest   bytea NOT NULL,
    differs  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (qc, node, start_at)
);

-- What was handed out, for ever: the record that an audit replays. `request` makes a repeated call harmless.
CREATE TABLE IF NOT EXISTS allocation (
    request  uuid NOT NULL,
    position integer NOT NULL,
    qc       text NOT NULL,
    epoch    bigint NOT NULL,
    start_at bigint NOT NULL,
    end_at   bigint NOT NULL,
    node     text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (request, position)
);

-- The keys that allocations make, for ever. Over one hop also how the slave's KME finds the key: starting and ending
-- position in the QC's stream. Over several hops it gets the key from the first node, and `qc` is NULL.
CREATE TABLE IF NOT EXISTS key (
    key_id     uuid PRIMARY KEY,
    request    uuid NOT NULL,
    ksid       uuid NOT NULL,
    master_sae text NOT NULL,
    slave_sae  text NOT NULL,
    slave_node text NOT NULL,
    qc         text,
    epoch      bigint,
    start_at   bigint,
    end_at     bigint,
    trace      uuid,  -- W3C trace ID of whoever made it, for the journal of whoever fetches it
    made       timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivery   uuid,
    delivered  timestamptz
);
CREATE INDEX IF NOT EXISTS key_request ON key (request);
CREATE INDEX IF NOT EXISTS key_waiting ON key (slave_node, made) WHERE delivery IS NULL AND qc IS NOT NULL;
CREATE INDEX IF NOT EXISTS key_delivery ON key (delivery) WHERE delivery IS NOT NULL;

-- Which node was found to hold rows that others waited for in vain, and when. Rows are only ever added: a row that is
-- changed could be held, too.
CREATE TABLE IF NOT EXISTS blame (
    role text NOT NULL,
    at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS blame_role ON blame (role, at);

-- Refuse what a node asks for. QK001, unless another state says why: QK002 (the server is another one than the caller
-- thinks), QK003 (an end of a QC has not reported to this server yet).
CREATE OR REPLACE FUNCTION qkd_refuse(p_message text, p_state text DEFAULT 'QK001') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_message;
END $$;

-- A node that held up others has to wait: two seconds, and twice as long each time that it does so again within ten
-- minutes, a minute at most. Those who found it at the same time count once.
CREATE OR REPLACE FUNCTION qkd_is_barred(p_role text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((SELECT max(at) + least(60, 2 ^ count(DISTINCT date_trunc('second', at))) * interval '1 s'
        FROM blame WHERE role = p_role AND at > clock_timestamp() - interval '10 minutes') > clock_timestamp(), false);
END $$;

-- A node speaks for itself only, and each call has a transaction of its own: what holds rows then waits for no others
-- but in the order of their names. Where all nodes share a role, in a database of the user's, they have to trust one another.
CREATE OR REPLACE FUNCTION qkd_check_speaker(p_node text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF session_user LIKE 'node-%' AND session_user IS DISTINCT FROM 'node-' || p_node THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s cannot speak for node %s', session_user, p_node);
    END IF;
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        PERFORM qkd_refuse('expected a transaction for this call alone');
    END IF;
    IF qkd_is_barred(session_user) THEN
        PERFORM qkd_refuse(format('%s has held up others', session_user), '53400');
    END IF;
END $$;

-- Which server answers: another one after each start, and after each promotion of a standby. A server that was not there
-- all the time may have lost commits, and would give out again what an end has been given.
CREATE OR REPLACE FUNCTION qkd_server() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')
        || left(pg_walfile_name(pg_current_wal_lsn()), 8);
END $$;

CREATE OR REPLACE FUNCTION qkd_check_server(p_server text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_server IS DISTINCT FROM qkd_server() THEN
        PERFORM qkd_refuse('this node has to report to it first', 'QK002');
    END IF;
END $$;

-- A node begins to speak to this server: the server, the node's secret, how far its local database had counted before. Its QCs are as the owner has said.
CREATE OR REPLACE FUNCTION qkd_enter(p_node text, p_qcs text[], p_peers text[])
RETURNS TABLE (server text, secret text, told bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    other text;
BEGIN
    PERFORM qkd_check_speaker(p_node);
    SELECT r.name INTO other FROM unnest(p_qcs, p_peers) AS r (name, peer)
        WHERE NOT EXISTS (SELECT 1 FROM qc WHERE qc.name = r.name AND node_a = least(p_node, r.peer) AND node_b = greatest(p_node, r.peer));
    IF FOUND THEN
        PERFORM qkd_refuse(format('p_qcs: expected QCs of %s, as they were declared; %s is none', p_node, other));
    END IF;
    RETURN QUERY SELECT qkd_server(), encode(node.secret, 'hex'), node.told FROM node WHERE name = p_node;
    IF NOT FOUND THEN
        PERFORM qkd_refuse(format('p_node: expected a node of this network, not %s', p_node));
    END IF;
END $$;

-- A node counts on from the time at which its local database was made, in nanoseconds. A year is more than clocks differ.
-- A greater number might be the last that there is: a node that was taken over once could never speak again.
CREATE OR REPLACE FUNCTION qkd_check_number(p_number bigint) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF (p_number BETWEEN 0 AND 1000000000 * extract(epoch FROM clock_timestamp() + interval '1 year')) IS NOT TRUE THEN
        PERFORM qkd_refuse(format('p_number: expected nanoseconds since 1970, of a year from now at most, not %s', p_number));
    END IF;
END $$;

-- How far a node's local database has counted: should an older copy of it be put back, that shows.
CREATE OR REPLACE FUNCTION qkd_count(p_node text, p_number bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM qkd_check_speaker(p_node);
    PERFORM qkd_check_number(p_number);
    UPDATE node SET told = greatest(told, p_number) WHERE name = p_node;
END $$;

-- What one end holds of its QCs, once a slot: the current epoch, the first byte that it has not given up, and its blocks
-- that end after p_after, the first 512 of them: of such blocks it said nothing before that counts now. A report that a
-- later one (p_number) has overtaken counts for nothing; else the last word counts, be it less than the one before: what
-- was allocated stays allocated, for the tail never goes back. One row a QC says up to where the database knows now what
-- is held; further rows name blocks that are others at the other end.
CREATE OR REPLACE FUNCTION qkd_report(
    p_node text, p_server text, p_number bigint, p_qcs text[], p_epochs bigint[], p_floors bigint[], p_after bigint[],
    p_mark_qcs text[], p_starts bigint[], p_ends bigint[], p_digests text[]
) RETURNS TABLE (qc_name text, known bigint, start_at bigint, end_at bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    bad  text;
    said record;
BEGIN
    PERFORM qkd_check_speaker(p_node);
    PERFORM qkd_check_server(p_server);
    PERFORM qkd_check_number(p_number);
    SELECT r.name INTO bad FROM unnest(p_qcs, p_epochs, p_floors, p_after) AS r (name, epoch, floor, after)
        WHERE (r.epoch >= 0 AND r.floor >= 0 AND r.floor < 1::bigint << 62 AND r.after >= 0
            AND EXISTS (SELECT 1 FROM qc WHERE qc.name = r.name AND p_node IN (node_a, node_b))) IS NOT TRUE;
    IF FOUND THEN
        PERFORM qkd_refuse(format(
            'p_qcs: expected QCs of %s, with an epoch and a floor from 0 to below 2^62; %s is not so', p_node, bad));
    END IF;
    IF (cardinality(p_qcs) = (SELECT count(DISTINCT name) FROM unnest(p_qcs) AS name)
            AND cardinality(p_starts) <= 512 * cardinality(p_qcs)) IS NOT TRUE THEN
        PERFORM qkd_refuse('p_qcs: expected each QC once, with at most 512 blocks');
    END IF;
    PERFORM 1 FROM qc WHERE name = ANY (p_qcs) ORDER BY name FOR UPDATE;
    UPDATE qc SET server_a = p_server, epoch_a = r.epoch, floor_a = r.floor, said_a = p_number
        FROM unnest(p_qcs, p_epochs, p_floors) AS r (name, epoch, floor)
        WHERE qc.name = r.name AND node_a = p_node AND said_a < p_number;
    UPDATE qc SET server_b = p_server, epoch_b = r.epoch, floor_b = r.floor, said_b = p_number
        FROM unnest(p_qcs, p_epochs, p_floors) AS r (name, epoch, floor)
        WHERE qc.name = r.name AND node_b = p_node AND said_b < p_number;
    UPDATE node SET told = greatest(told, p_number) WHERE name = p_node;
    -- Now and then: who keeps a transaction open keeps all that changes meanwhile from being cleared away, and each call
    -- would take longer than the one before. No node of ours is at one for so long.
    IF random() < 0.02 THEN
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND usename LIKE 'node-%' AND xact_start < clock_timestamp() - interval '5 s';
    END IF;
    -- Where both have come to a new epoch, its stream begins.
    INSERT INTO past_epoch (qc, epoch, tail)
        SELECT name, epoch, tail FROM qc WHERE name = ANY (p_qcs) AND epoch_a = epoch_b AND epoch <> epoch_a AND tail > 0
        ON CONFLICT ON CONSTRAINT past_epoch_pkey DO UPDATE SET tail = greatest(past_epoch.tail, excluded.tail);
    UPDATE qc SET
        epoch = epoch_a, floor = 0, head = 0,
        tail = coalesce((SELECT p.tail FROM past_epoch p WHERE p.qc = name AND p.epoch = epoch_a), 0)
    WHERE name = ANY (p_qcs) AND epoch_a = epoch_b AND epoch <> epoch_a;
    FOR said IN
        SELECT r.name, r.epoch, r.after FROM unnest(p_qcs, p_epochs, p_after) AS r (name, epoch, after) JOIN qc USING (name)
            WHERE p_number = CASE p_node WHEN node_a THEN said_a WHEN node_b THEN said_b END
                AND r.epoch = CASE p_node WHEN node_a THEN epoch_a ELSE epoch_b END
    LOOP
        RETURN QUERY SELECT said.name, m.known, m.start_at, m.end_at FROM qkd_compare(
            p_node, said.name, said.epoch, said.after,
            ARRAY(SELECT (r.qc, p_node, said.epoch, r.s, r.e, decode(r.digest, 'hex'), false)::mark
                FROM unnest(p_mark_qcs, p_starts, p_ends, p_digests) AS r (qc, s, e, digest) WHERE r.qc = said.name)
        ) AS m;
    END LOOP;
END $$;

-- Take in one end's blocks of a QC, which is locked, and compare them with those of the other end: see decisions/ranges.py.
CREATE OR REPLACE FUNCTION qkd_compare(p_node text, p_qc text, p_epoch bigint, p_after bigint, p_marks mark[])
RETURNS TABLE (known bigint, start_at bigint, end_at bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    q       qc;
    common  boolean;
    settled bigint;
    new     bigint[];
    bad     bigint[];
    there   bigint[];
    m       record;
BEGIN
    SELECT * INTO q FROM qc WHERE name = p_qc;
    common := q.epoch_a = q.epoch_b;
    settled := CASE WHEN common THEN greatest(q.floor, q.head, q.floor_a, q.floor_b)
                    WHEN p_node = q.node_a THEN q.floor_a ELSE q.floor_b END;
    DELETE FROM mark WHERE qc = p_qc AND node = p_node AND (epoch <> p_epoch OR (end_at <= settled AND NOT differs)
        OR end_at <= CASE p_node WHEN q.node_a THEN q.floor_a ELSE q.floor_b END
        OR (end_at > p_after AND NOT differs AND NOT EXISTS (
            SELECT 1 FROM unnest(p_marks) AS r
                WHERE (r.start_at, r.end_at, r.digest) = (mark.start_at, mark.end_at, mark.digest))));
    SELECT greatest(settled, max(end_at)) INTO known FROM mark WHERE qc = p_qc AND node = p_node;
    IF p_after <= known THEN
        WITH taken AS (
            INSERT INTO mark SELECT * FROM unnest(p_marks) AS r
                WHERE r.end_at > settled AND r.start_at >= 0 AND r.end_at - r.start_at BETWEEN 1 AND 2 << 20
                    AND octet_length(r.digest) = 16
                ON CONFLICT DO NOTHING RETURNING start_at)
        SELECT array_agg(start_at) INTO new FROM taken;
    END IF;
    IF new IS NOT NULL AND common THEN
        SELECT array_agg(o.start_at), array_agg(t.start_at) INTO bad, there
            FROM mark o JOIN mark t ON t.qc = p_qc AND t.node <> p_node AND t.start_at < o.end_at AND t.end_at > o.start_at
                AND t.start_at > o.start_at - (2 << 20)  -- no block is longer
                AND (t.start_at, t.end_at, t.digest) IS DISTINCT FROM (o.start_at, o.end_at, o.digest)
            WHERE o.qc = p_qc AND o.node = p_node AND o.start_at = ANY (new);
        UPDATE mark SET differs = true
            WHERE qc = p_qc AND ((node = p_node AND start_at = ANY (bad)) OR (node <> p_node AND start_at = ANY (there)));
        FOR m IN
            SELECT o.start_at, o.end_at FROM mark o JOIN mark t USING (qc, start_at, end_at, digest)
                WHERE o.qc = p_qc AND o.node = p_node AND o.start_at = ANY (new) AND t.node <> p_node
                    AND NOT o.differs AND NOT t.differs
                ORDER BY o.start_at
        LOOP
            IF m.start_at >= q.head THEN
                IF m.start_at > q.head THEN  -- what is before it is missing at an end, or differs
                    q.floor := m.start_at;
                END IF;
                q.head := m.end_at;
            END IF;
        END LOOP;
        UPDATE qc SET floor = q.floor, head = q.head WHERE name = p_qc;
    END IF;
    IF common THEN
        settled := greatest(q.floor, q.head, q.floor_a, q.floor_b);
        DELETE FROM mark WHERE qc = p_qc AND (NOT differs OR end_at <= CASE node WHEN q.node_a THEN q.floor_a ELSE q.floor_b END)
            AND end_at <= settled;
    END IF;
    -- An end whose other end is away for long is compared by the last of its blocks: others are not waited for.
    DELETE FROM mark WHERE qc = p_qc AND node = p_node AND NOT differs AND start_at < (
        SELECT l.start_at FROM mark l WHERE l.qc = p_qc AND l.node = p_node ORDER BY l.start_at DESC OFFSET 4096 LIMIT 1);
    SELECT greatest(settled, max(end_at)) INTO known FROM mark WHERE qc = p_qc AND node = p_node;
    RETURN NEXT;
    RETURN QUERY SELECT NULL::bigint, d.start_at, d.end_at FROM mark d WHERE d.qc = p_qc AND d.node = p_node AND d.differs;
END $$;

-- The MAC by which a later node of a path knows that these ranges of its links were allocated for that request:
-- HMAC-SHA256 under its secret, of the same words as in node/relaying/ciphers.py.
CREATE OR REPLACE FUNCTION qkd_proof(p_inner_pad bytea, p_outer_pad bytea, p_words text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN encode(sha256(p_outer_pad || sha256(p_inner_pad || convert_to(p_words, 'UTF8'))), 'hex');
END $$;

-- Keys are made by the node of their master for their slave at its node, and the sums are right: over one hop the range
-- is the keys; over several each QC gives a pad for what is relayed, the keys themselves or a shared key. In modes with a
-- shared key the first QC gives that, not a pad, and either the first or the last one the new keys besides.
CREATE OR REPLACE FUNCTION qkd_check_keys(
    p_node text, p_needs bigint[], p_key_ids uuid[], p_key_bytes bigint, p_master text, p_slave text, p_slave_node text
) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    new bigint := p_key_bytes * cardinality(p_key_ids);
    hops integer := cardinality(p_needs);
    pad bigint := least(p_needs[1], p_needs[hops]);
    most bigint := greatest(p_needs[1], p_needs[hops]);
BEGIN
    IF (p_key_bytes BETWEEN 1 AND 1 << 20 AND cardinality(p_key_ids) BETWEEN 1 AND 4096
            AND cardinality(p_key_ids) = (SELECT count(DISTINCT k) FROM unnest(p_key_ids) AS k)) IS NOT TRUE THEN
        PERFORM qkd_refuse('p_key_ids: expected 1 to 4096 different IDs, of keys of 1 byte to 1 MiB');
    END IF;
    IF (CASE hops WHEN 1 THEN p_needs[1] = new ELSE
            pad > 0 AND pad = ALL (p_needs[2:hops - 1]) AND (most - pad = new OR (most = new AND pad = new)) END) IS NOT TRUE
            OR array_position(p_needs, NULL) IS NOT NULL THEN
        PERFORM qkd_refuse(format('p_needs: expected what %s bytes of keys take, not %s', new, p_needs));
    END IF;
    IF NOT EXISTS (SELECT 1 FROM sae WHERE id = p_master AND node = p_node) THEN
        PERFORM qkd_refuse(format('p_master: expected an SAE of node %s', p_node));
    END IF;
    IF NOT EXISTS (SELECT 1 FROM sae WHERE id = p_slave AND node = p_slave_node) THEN
        PERFORM qkd_refuse(format('p_slave: expected an SAE of node %s', p_slave_node));
    END IF;
END $$;

-- Ranges of p_needs[i] bytes on each QC p_qcs[i], all or nothing, of which keys of p_key_bytes each become. The QCs are a
-- path from p_node to p_slave_node, or several that share no node between, one after the other: then each QC gives a part
-- as long as the keys. Either one row a QC, or one row with short_bytes > 0 for the QC that lacked most.
-- Over one hop there is an instruction for the slave's KME in the same transaction. Else the proof in a QC's row is for
-- the node at its far end, about the place of the QC on its own path.
CREATE OR REPLACE FUNCTION qkd_allocate(
    p_request uuid, p_node text, p_server text, p_qcs text[], p_needs bigint[],
    p_key_ids uuid[], p_key_bytes bigint, p_ksid uuid, p_master text, p_slave text, p_slave_node text, p_trace uuid
) RETURNS TABLE (qc_name text, epoch bigint, start_at bigint, end_at bigint, short_bytes bigint, proof text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    hops    integer := cardinality(p_qcs);
    places  integer[];  -- of each QC on its own path, from 1 on
    lengths integer[];  -- of the paths that end by now, in QCs
    passed  text[] := '{}';  -- nodes between
    at_far  text[];  -- the node behind each QC
    near    text := p_node;
    onward  text;
    silent  text;
    q       qc;
    starts  bigint[];
    epochs  bigint[];
    words   text[];
    free    bigint;
    lacking bigint;
BEGIN
    PERFORM qkd_check_speaker(p_node);
    IF (hops BETWEEN 1 AND 64 AND hops = cardinality(p_needs)) IS NOT TRUE THEN
        PERFORM qkd_refuse('p_qcs: expected 1 to 64 QCs, and p_needs for each');
    END IF;
    PERFORM qkd_check_keys(p_node, p_needs, p_key_ids, p_key_bytes, p_master, p_slave, p_slave_node);
    PERFORM qkd_check_server(p_server);
    IF hops > 1 THEN  -- in the order of names everywhere, so that two requests never wait for each other
        PERFORM 1 FROM qc WHERE name = ANY (p_qcs) ORDER BY name FOR UPDATE;
    END IF;

    short_bytes := 0;
    FOR i IN 1..hops LOOP
        SELECT * INTO q FROM qc WHERE name = p_qcs[i] FOR UPDATE;
        onward := CASE near WHEN q.node_a THEN q.node_b WHEN q.node_b THEN q.node_a END;
        IF onward IS NULL OR onward = p_node OR onward = ANY (passed) THEN
            PERFORM qkd_refuse(format('p_qcs: expected a path from %s to %s; %s does not go on', p_node, p_slave_node, p_qcs[i]));
        END IF;
        at_far[i] := onward;
        places[i] := CASE near WHEN p_node THEN 1 ELSE places[i - 1] + 1 END;
        IF onward = p_slave_node THEN
            lengths := lengths || array_fill(places[i], ARRAY[places[i]]);
            near := p_node;
        ELSE
            passed := passed || onward;
            near := onward;
        END IF;
        silent := coalesce(silent, CASE WHEN q.server_a <> p_server THEN q.node_a WHEN q.server_b <> p_server THEN q.node_b END);
        free := greatest(q.tail, q.floor, q.floor_a, q.floor_b);
        starts[i] := free;
        epochs[i] := q.epoch;
        lacking := p_needs[i] - CASE WHEN q.epoch_a = q.epoch_b THEN greatest(0, q.head - free) ELSE 0 END;
        IF lacking > short_bytes OR lacking = short_bytes AND p_qcs[i] < qc_name THEN
            qc_name := p_qcs[i];
            short_bytes := lacking;
        END IF;
    END LOOP;
    IF onward IS DISTINCT FROM p_slave_node THEN
        PERFORM qkd_refuse(format('p_qcs: expected a path to %s, not to %s', p_slave_node, onward));
    END IF;
    IF lengths[1] < hops THEN
        IF hops > (SELECT count(DISTINCT name) FROM unnest(p_qcs) AS name) THEN
            PERFORM qkd_refuse('p_qcs: expected each QC once');
        ELSIF NOT p_needs[1] = ALL (p_needs) THEN
            PERFORM qkd_refuse(format('p_needs: expected as much of each QC of several paths, not %s', p_needs));
        END IF;
    END IF;

    IF EXISTS (SELECT 1 FROM allocation WHERE request = p_request) THEN
        -- A repeated request gets what it got: its first answer was lost on the way. By then there may be too little.
        SELECT array_agg(a.epoch ORDER BY a.position), array_agg(a.start_at ORDER BY a.position) INTO epochs, starts
            FROM allocation a WHERE a.request = p_request AND a.node = p_node AND a.qc = p_qcs[a.position]
                AND a.end_at - a.start_at = p_needs[a.position];
        IF cardinality(starts) IS DISTINCT FROM hops THEN
            PERFORM qkd_refuse('p_request: expected a new ID, or the same request again');
        END IF;
        short_bytes := 0;
    ELSE
        IF silent IS NOT NULL THEN
            PERFORM qkd_refuse(format('node %s has to report to it first', silent), 'QK003');
        END IF;
        IF short_bytes > 0 THEN
            RETURN NEXT;
            RETURN;
        END IF;
        IF EXISTS (SELECT 1 FROM key WHERE key_id = ANY (p_key_ids)) THEN
            PERFORM qkd_refuse('p_key_ids: expected IDs of new keys');
        END IF;
        FOR i IN 1..hops LOOP
            INSERT INTO allocation (request, position, qc, epoch, start_at, end_at, node)
                VALUES (p_request, i, p_qcs[i], epochs[i], starts[i], starts[i] + p_needs[i], p_node);
            UPDATE qc SET tail = starts[i] + p_needs[i] WHERE name = p_qcs[i];
        END LOOP;
        INSERT INTO key (key_id, request, ksid, master_sae, slave_sae, slave_node, qc, epoch, start_at, end_at, trace)
            SELECT k.key_id, p_request, p_ksid, p_master, p_slave, p_slave_node,
                   CASE hops WHEN 1 THEN p_qcs[1] END, CASE hops WHEN 1 THEN epochs[1] END,
                   CASE hops WHEN 1 THEN starts[1] + (k.i - 1) * p_key_bytes END,
                   CASE hops WHEN 1 THEN starts[1] + k.i * p_key_bytes END, p_trace
            FROM unnest(p_key_ids) WITH ORDINALITY AS k (key_id, i);
    END IF;

    IF hops > 1 THEN
        FOR i IN 1..hops LOOP
            words[i] := format(' %s %s %s %s %s', epochs[i], starts[i], starts[i] + p_needs[i], octet_length(p_qcs[i]), p_qcs[i]);
        END LOOP;
    END IF;
    FOR i IN 1..hops LOOP
        qc_name := p_qcs[i];
        epoch := epochs[i];
        start_at := starts[i];
        end_at := starts[i] + p_needs[i];
        IF hops > 1 THEN
            SELECT qkd_proof(
                    n.inner_pad, n.outer_pad,
                    concat_ws(' ', p_request, p_server, places[i], lengths[i]) || words[i]
                        || CASE WHEN places[i] < lengths[i] THEN words[i + 1] ELSE '' END
                ) INTO proof FROM node n WHERE n.name = at_far[i];
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- How long ago that was, rounded up: clocks of nodes and of the database need not agree. NULL for no time: a single row
-- that somebody has tampered with must not keep others from being read.
CREATE OR REPLACE FUNCTION qkd_age_ms(p_made timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF isfinite(p_made) THEN
        RETURN greatest(0, ceil(1000 * extract(epoch FROM clock_timestamp() - p_made)));
    END IF;
    RETURN NULL;
END $$;

-- Hand the instructions of all p_key_ids to the slave's KME and mark them delivered, all or nothing, once. One row a
-- key, or a single row whose verdict says why not: 'foreign' (another SAE's key) goes before 'missing'. Keys that were
-- made together go together: those not asked for yet come along ('ahead'), so that the next one needs no round trip.
-- p_delivery names this delivery: repeated because its answer was lost, it gets the same answer again.
CREATE OR REPLACE FUNCTION qkd_deliver(
    p_delivery uuid, p_node text, p_server text, p_master text, p_slave text, p_key_ids uuid[]
)
RETURNS TABLE (
    verdict text, key_id uuid, request uuid, ksid uuid, qc_name text, epoch bigint, start_at bigint, end_at bigint,
    trace uuid, age_ms bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM qkd_check_speaker(p_node);
    PERFORM qkd_check_server(p_server);
    IF (cardinality(p_key_ids) BETWEEN 1 AND 4096) IS NOT TRUE THEN
        PERFORM qkd_refuse('p_key_ids: expected 1 to 4096 IDs');
    END IF;
    IF NOT EXISTS (SELECT 1 FROM sae WHERE id = p_slave AND node = p_node) THEN
        PERFORM qkd_refuse(format('p_slave: expected an SAE of node %s', p_node));
    END IF;
    PERFORM 1 FROM key k
        WHERE k.request IN (SELECT own.request FROM key own WHERE own.key_id = ANY (p_key_ids))
        ORDER BY k.key_id FOR UPDATE;
    PERFORM 1 FROM key k WHERE k.key_id = ANY (p_key_ids) AND k.slave_sae <> p_slave AND k.qc IS NOT NULL;
    IF FOUND THEN
        verdict := 'foreign';
        RETURN NEXT;
        RETURN;
    END IF;
    IF (SELECT count(*) FROM key k WHERE k.key_id = ANY (p_key_ids) AND (k.delivery IS NULL OR k.delivery = p_delivery)
            AND k.master_sae = p_master AND k.slave_node = p_node AND k.qc IS NOT NULL) <> cardinality(p_key_ids) THEN
        verdict := 'missing';
        RETURN NEXT;
        RETURN;
    END IF;
    UPDATE key k SET delivery = p_delivery, delivered = clock_timestamp()
        WHERE k.delivery IS NULL AND k.master_sae = p_master AND k.slave_sae = p_slave
            AND k.request IN (SELECT own.request FROM key own WHERE own.key_id = ANY (p_key_ids));
    RETURN QUERY SELECT CASE WHEN k.key_id = ANY (p_key_ids) THEN 'ok' ELSE 'ahead' END,
            k.key_id, k.request, k.ksid, k.qc, k.epoch, k.start_at, k.end_at, k.trace, qkd_age_ms(k.made)
        FROM key k WHERE k.delivery = p_delivery;
END $$;

-- Hand the slave's KME the instructions that nobody has asked for yet, the oldest first, before their bytes are too old.
-- p_delivery names this delivery: a node that died before it had kept what it got asks by the same name, and gets that again.
CREATE OR REPLACE FUNCTION qkd_collect(p_delivery uuid, p_node text, p_server text, p_most integer)
RETURNS TABLE (
    key_id uuid, request uuid, ksid uuid, master_sae text, slave_sae text, qc_name text, epoch bigint, start_at bigint,
    end_at bigint, trace uuid, age_ms bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM qkd_check_speaker(p_node);
    PERFORM qkd_check_server(p_server);
    -- Rows that a delivery holds are looked after.
    UPDATE key k SET delivery = p_delivery, delivered = clock_timestamp()
        WHERE k.key_id IN (
            SELECT w.key_id FROM key w WHERE w.slave_node = p_node AND w.delivery IS NULL AND w.qc IS NOT NULL
            ORDER BY w.made LIMIT p_most FOR UPDATE SKIP LOCKED);
    RETURN QUERY SELECT k.key_id, k.request, k.ksid, k.master_sae, k.slave_sae, k.qc, k.epoch, k.start_at,
            k.end_at, k.trace, qkd_age_ms(k.made)
        FROM key k WHERE k.delivery = p_delivery AND k.slave_node = p_node;
END $$;

-- What keys cost that p_node makes, or that are for its SAEs: of each range of their allocation the part of each key. Of
-- p_key_ids those that the database knows. Over one hop the part is the key; over several, where keys are made together,
-- what they share is divided among them, in the order of their IDs.
CREATE OR REPLACE FUNCTION qkd_cost(p_node text, p_key_ids uuid[])
RETURNS TABLE (key_id uuid, request uuid, qc_name text, epoch bigint, start_at bigint, end_at bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM qkd_check_speaker(p_node);
    IF (cardinality(p_key_ids) BETWEEN 1 AND 4096) IS NOT TRUE THEN
        PERFORM qkd_refuse('p_key_ids: expected 1 to 4096 IDs');
    END IF;
    RETURN QUERY SELECT k.key_id, k.request, a.qc, a.epoch,
            a.start_at + (a.end_at - a.start_at) * (k.i - 1) / k.n, a.start_at + (a.end_at - a.start_at) * k.i / k.n
        FROM (
            SELECT t.key_id, t.request, t.slave_node, row_number() OVER w AS i, count(*) OVER (PARTITION BY t.request) AS n
                FROM key t WHERE t.request IN (SELECT own.request FROM key own WHERE own.key_id = ANY (p_key_ids))
                WINDOW w AS (PARTITION BY t.request ORDER BY t.start_at, t.key_id)
        ) k JOIN allocation a USING (request)
        WHERE k.key_id = ANY (p_key_ids) AND p_node IN (a.node, k.slave_node)
            AND (a.end_at - a.start_at) * (k.i - 1) / k.n < (a.end_at - a.start_at) * k.i / k.n
        ORDER BY k.request, k.i, a.position;
END $$;

-- Bytes that could be allocated now on each of p_qcs.
CREATE OR REPLACE FUNCTION qkd_available(p_qcs text[]) RETURNS TABLE (qc_name text, n_bytes bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    here text := qkd_server();
BEGIN
    RETURN QUERY SELECT name, CASE WHEN epoch_a = epoch_b AND server_a = here AND server_b = here
            THEN greatest(0, head - greatest(tail, floor, floor_a, floor_b)) ELSE 0 END
        FROM qc WHERE name = ANY (p_qcs);
END $$;

-- Sessions of nodes that hold rows and wait for nobody: each with its transaction. What the server itself has to write
-- for a commit is not their doing.
CREATE OR REPLACE FUNCTION qkd_holders() RETURNS TABLE (pid integer, role text, transaction text) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_stat_clear_snapshot();
    RETURN QUERY SELECT s.pid, s.usename::text, concat_ws(' ', s.pid, s.backend_xid) FROM pg_stat_activity s
        WHERE datname = current_database() AND (usename LIKE 'node-%' OR usename = session_user) AND s.pid <> pg_backend_pid()
            AND backend_xid IS NOT NULL AND wait_event_type IS DISTINCT FROM 'Lock'
            AND coalesce(wait_event, '') NOT LIKE 'WAL%' AND wait_event IS DISTINCT FROM 'SyncRep';
END $$;

-- End sessions of nodes that hold rows and do not come to an end, whatever they do meanwhile: whoever waited for rows in
-- vain calls this, and then qkd_end_barred. A node does each call in a transaction of its own, and holds rows for a moment.
-- A session that held them shorter than what lies between the two looks is let be: with all that a node may have, one
-- after the other, it stays below the time for which others wait.
CREATE OR REPLACE FUNCTION qkd_end_holders() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    seen text[] := ARRAY(SELECT transaction FROM qkd_holders());
    held record;
BEGIN
    PERFORM pg_sleep(0.05);
    FOR held IN SELECT * FROM qkd_holders() WHERE transaction = ANY (seen) LOOP
        PERFORM pg_terminate_backend(held.pid);
        IF held.role LIKE 'node-%' THEN
            INSERT INTO blame (role) VALUES (held.role);
        END IF;
    END LOOP;
END $$;

-- End what sessions of nodes that are barred by now had begun before: others of theirs were next in line for those rows.
CREATE OR REPLACE FUNCTION qkd_end_barred() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND usename LIKE 'node-%' AND pid <> pg_backend_pid()
            AND xact_start IS NOT NULL AND qkd_is_barred(usename);
END $$;

REVOKE ALL ON FUNCTION qkd_refuse, qkd_age_ms, qkd_check_speaker, qkd_server, qkd_check_server, qkd_check_number, qkd_enter, qkd_count, qkd_report, qkd_compare, qkd_proof,
    qkd_check_keys, qkd_allocate, qkd_deliver, qkd_collect, qkd_cost, qkd_available, qkd_is_barred, qkd_holders, qkd_end_holders,
    qkd_end_barred FROM PUBLIC;
