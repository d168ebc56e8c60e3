package millrace.peers.flink;

import millrace.peers.job.Payment;
import millrace.peers.job.PaymentReader;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** A record of the input as a payment. */
final class PaymentDeserializer implements KafkaRecordDeserializationSchema<Payment> {
    private static final long serialVersionUID = 1L;

    private final String schemas;
    private transient PaymentReader reader;

    PaymentDeserializer(String schemas) {
        this.schemas = schemas;
    }

    @Override
    public void open(DeserializationSchema.InitializationContext context) {
        reader = new PaymentReader(schemas);
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Payment> out) {
        out.collect(reader.read(record.value()));
    }

    @Override
    public TypeInformation<Payment> getProducedType() {
        return TypeInformation.of(Payment.class);
    }
}
