package millrace.peers.job;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.EncoderFactory;

/** Writes scored payments in Avro behind the five bytes of Confluent's framing. For one thread: record and encoder are used again and again. */
public final class ScoredWriter {
    private static final byte[] FRAME = {0, 0, 0, 0, 2};
    private static final int ROOM = 128;

    private final GenericDatumWriter<GenericRecord> writer;
    private final GenericRecord record;
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(ROOM);
    private BinaryEncoder encoder;

    public ScoredWriter(String schemas) {
        Schema schema;
        try {
            schema = new Schema.Parser().parse(Path.of(schemas, "scored.avsc").toFile());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        writer = new GenericDatumWriter<>(schema);
        record = new GenericData.Record(schema);
    }

    /** The framed bytes; the features in the order of the schema, which is that of {@link History#pass}. */
    public byte[] write(String eventId, double[] features, float score) {
        record.put(0, eventId);
        for (int feature = 0; feature < Windows.FEATURES; feature++) {
            record.put(1 + feature, features[feature]);
        }
        record.put(1 + Windows.FEATURES, score);
        bytes.reset();
        bytes.write(FRAME, 0, FRAME.length);
        encoder = EncoderFactory.get().directBinaryEncoder(bytes, encoder);
        try {
            writer.write(record, encoder);
            encoder.flush();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return bytes.toByteArray();
    }
}
