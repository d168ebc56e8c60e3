package millrace.peers.job;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/** Reads payments in Avro behind the five bytes of Confluent's framing. For one thread: record and decoder are used again and again. */
public final class PaymentReader {
    static final int FRAME_BYTES = 5;
    private static final int SCHEMA_ID = 1;

    private final GenericDatumReader<GenericRecord> reader;
    private final int paymentId;
    private final int customerId;
    private final int eventTime;
    private final int amount;
    private GenericRecord record;
    private BinaryDecoder decoder;

    public PaymentReader(String schemas) {
        Schema schema;
        try {
            schema = new Schema.Parser().parse(Path.of(schemas, "payment.avsc").toFile());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        reader = new GenericDatumReader<>(schema);
        paymentId = schema.getField("payment_id").pos();
        customerId = schema.getField("customer_id").pos();
        eventTime = schema.getField("event_time").pos();
        amount = schema.getField("amount").pos();
    }

    public Payment read(byte[] value) {
        if (value.length < FRAME_BYTES || value[0] != 0 || schemaId(value) != SCHEMA_ID) {
            throw new IllegalArgumentException("not a payment: wanted a record of schema " + SCHEMA_ID + " in Confluent's framing");
        }
        decoder = DecoderFactory.get().binaryDecoder(value, FRAME_BYTES, value.length - FRAME_BYTES, decoder);
        try {
            record = reader.read(record, decoder);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return new Payment(
                record.get(paymentId).toString(),
                record.get(customerId).toString(),
                (Long) record.get(eventTime),
                Math.round((Double) record.get(amount) * 100.0));
    }

    private static int schemaId(byte[] value) {
        return value[1] << 24 | (value[2] & 0xff) << 16 | (value[3] & 0xff) << 8 | value[4] & 0xff;
    }
}
